"""Exporters: they write a verified ``model.plan`` from a run or from published files.

Names are loaded on first use, because the published ONNX files are exported without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "ExportProfile": "finegrain.exporters.profile",
    "Fp16": "finegrain.exporters.half",
    "Fp32": "finegrain.exporters.precision",
    "Fp8": "finegrain.exporters.fp8",
    "Int8": "finegrain.exporters.int8",
    "ParityReport": "finegrain.exporters.parity",
    "Precision": "finegrain.exporters.precision",
    "export": "finegrain.exporters.export_plan",
    "load_profile": "finegrain.exporters.profile",
}

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

if TYPE_CHECKING:
    from finegrain.exporters.export_plan import export
    from finegrain.exporters.fp8 import Fp8
    from finegrain.exporters.half import Fp16
    from finegrain.exporters.int8 import Int8
    from finegrain.exporters.parity import ParityReport
    from finegrain.exporters.precision import Fp32, Precision
    from finegrain.exporters.profile import ExportProfile, load_profile


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
