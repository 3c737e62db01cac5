"""Export profiles: one file in ``export/`` is one target."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.errors import ExportError
from finegrain.exporters.precision import Fp32, Precision
from finegrain.exporters.triton import TritonServing
from finegrain.recipe.python_file import call_in_file
from finegrain.runtime.base import RuntimeName
from finegrain.runtime.tensorrt.backend import BackendName


@dataclass(frozen=True, kw_only=True)
class ExportProfile:
    """How a model is shipped, and how near to the eager model that has to be.

    How near an embedding has to be to its eager twin is stated by the precision of its tower.

    Attributes:
        name: Of the target.
        runtime: What it is meant for; the parity check runs on it.
        opset: Of the ONNX graphs. 18 is the widest, and keeps attention decomposed; from 23 on
            attention is one node.
        text, image: What each tower computes in.
        match: What the match head of a method that has one computes in; None leaves it out.
        max_batch: Largest batch that the parity check tries.
        min_overlap: Least mean share of a query's top 10 that both models find.
        min_rank1_agreement: Least share of queries with the same first result.
        max_drift: Most that rank1 or mAP may fall, in points of percent.
        max_match_error: Most that the head's probability of a match may be off.
        engine: Build engines by this TensorRT and write them into the plan, for machines that open
            it with ``trust_engines``. TensorRT-RTX needs no GPU for it.
        search_depth: Add ``search.onnx``, which a GPU that holds the gallery runs behind the text
            tower: how many results it selects for the exact scores to choose from.
        triton: How a Triton server is to run the towers; with it, ``finegrain export`` also writes
            a model repository beside the plan.
    """

    name: str
    runtime: RuntimeName = "onnxruntime"
    opset: int = 18
    text: Precision = field(default_factory=Fp32)
    image: Precision = field(default_factory=Fp32)
    match: Precision | None = field(default_factory=Fp32)
    max_batch: int = 64
    min_overlap: float = 0.99
    min_rank1_agreement: float = 0.99
    max_drift: float = 0.5
    max_match_error: float = 0.05
    engine: BackendName | None = None
    search_depth: int = 0
    triton: TritonServing | None = None


def load_profile(path: str | Path) -> ExportProfile:
    """Read a profile from a Python file with ``def profile() -> ExportProfile``.

    Raises:
        ExportError: The file is missing or defines no profile.
    """
    path = Path(path)
    if not path.is_file() or path.suffix != ".py":
        raise ExportError(f"there is no export profile at {path}; look into export/")
    return call_in_file(path, "profile", ExportProfile, ExportError)
