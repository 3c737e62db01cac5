"""Exporters: from a run to a verified ``model.plan``."""

from finegrain.exporters.export_plan import export
from finegrain.exporters.parity import ParityReport
from finegrain.exporters.profile import ExportProfile, load_profile

__all__ = ["ExportProfile", "ParityReport", "export", "load_profile"]
