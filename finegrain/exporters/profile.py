"""Export profiles: one file in ``export/`` is one target."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.errors import ExportError, did_you_mean
from finegrain.exporters.precision import Fp32, Precision
from finegrain.exporters.triton import TritonServing
from finegrain.recipe.named_file import find_file, named_files
from finegrain.recipe.python_file import call_in_file
from finegrain.runtime.base import RuntimeName
from finegrain.runtime.tensorrt.backend import BackendName


@dataclass(frozen=True, kw_only=True)
class ExportProfile:
    """How a model is exported, and how close it must be to the eager model.

    The precision of a tower states the smallest allowed cosine of its embeddings.

    Attributes:
        name: Name of the target.
        runtime: The runtime that the plan is for. The parity check uses it.
        opset: Opset of the ONNX graphs. Most runtimes support 18, in which attention is several
            nodes. From 23 on, attention is one node.
        text, image: Precision of each tower.
        match: Precision of the match head, for methods that have one. None does not export it.
        dim: Width to which embeddings are shortened, by the principal components of the run's
            own; see :mod:`finegrain.exporters.shortening`. None keeps their full width.
        max_batch: Largest batch of the parity check.
        min_overlap: Smallest mean share of a query's first ten results that both models return.
        min_rank1_agreement: Smallest share of queries with the same first result.
        max_drift: Largest drop of rank1 or mAP, in percentage points.
        max_match_error: Largest error of the match head's probability.
        engine: The TensorRT that builds engines into the plan, for machines that open it with
            ``trust_engines``. TensorRT-RTX builds them without a GPU. None builds none.
        search_depth: How many results ``search.onnx`` selects before they are scored exactly. A
            GPU that holds the gallery runs this graph after the text tower. 0 adds no such graph.
        triton: Settings of a Triton server. With them ``finegrain export`` also writes a model
            repository beside the plan.
    """

    name: str
    runtime: RuntimeName = "onnxruntime"
    opset: int = 18
    text: Precision = field(default_factory=Fp32)
    image: Precision = field(default_factory=Fp32)
    match: Precision | None = field(default_factory=Fp32)
    dim: int | None = None
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

    Args:
        path: A Python file, which is executed, so it must be trusted; or the name of a profile in
            the folder ``export``, or of one that comes with finegrain, such as ``cpu_int8``.

    Raises:
        ExportError: The file is missing or defines no profile.
    """
    file = find_file(Path(path), "export")
    if file is None or not file.is_file() or file.suffix != ".py":
        known = named_files("export")
        raise ExportError(
            f"there is no export profile at {path}; these have a name: {', '.join(sorted(known))}."
            f"{did_you_mean(str(path), known)}"
        )
    return call_in_file(file, "profile", ExportProfile, ExportError)
