"""Export profiles: one file in ``export/`` is one target."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from finegrain.errors import ExportError


@dataclass(frozen=True, kw_only=True)
class ExportProfile:
    """How a model is shipped, and how near to the eager model that has to be.

    Attributes:
        name: Of the target.
        opset: Of the ONNX graphs. 18 is the widest that keeps attention decomposed, which
            every runtime loads in fp32.
        max_batch: Largest batch that the parity check tries.
        min_cosine: Least cosine between an exported embedding and its eager twin.
        min_overlap: Least mean share of a query's top 10 that both models find.
        min_rank1_agreement: Least share of queries with the same first result.
    """

    name: str
    opset: int = 18
    max_batch: int = 64
    min_cosine: float = 0.9999
    min_overlap: float = 0.99
    min_rank1_agreement: float = 0.99


def load_profile(path: str | Path) -> ExportProfile:
    """Read a profile from a Python file with ``def profile() -> ExportProfile``.

    Raises:
        ExportError: The file is missing or defines no profile.
    """
    path = Path(path)
    spec = importlib.util.spec_from_file_location(f"finegrain_export_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ExportError(f"there is no export profile at {path}; look into export/")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ExportError(f"{path} is not Python: {error}") from error
    function = getattr(module, "profile", None)
    made = function() if callable(function) else None
    if not isinstance(made, ExportProfile):
        raise ExportError(f"{path} must define `def profile() -> ExportProfile`")
    return made
