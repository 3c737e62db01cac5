"""Exporters: they write a verified ``model.plan`` from a run."""

from finegrain.exporters.export_plan import export
from finegrain.exporters.fp8 import Fp8
from finegrain.exporters.half import Fp16
from finegrain.exporters.int8 import Int8
from finegrain.exporters.parity import ParityReport
from finegrain.exporters.precision import Fp32, Precision
from finegrain.exporters.profile import ExportProfile, load_profile

__all__ = [
    "ExportProfile",
    "Fp8",
    "Fp16",
    "Fp32",
    "Int8",
    "ParityReport",
    "Precision",
    "export",
    "load_profile",
]
