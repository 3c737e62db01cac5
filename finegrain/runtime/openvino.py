"""The OpenVINO runtime: the graphs of a plan on a CPU, with int8 weights."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import PlanError, require
from finegrain.plan import IMAGE, TEXT, Plan


class OpenVinoRuntime:
    """Runs ``text.onnx`` and ``image.onnx`` of a plan.

    Everything except int8 is computed in fp32, even if the processor supports bf16. A plan then
    gives the same embeddings on all machines, and the vectors of a gallery stay comparable.

    Args:
        plan: A freshly opened plan; its graphs are moved into the compiled models.
        threads: Threads per run; by default one per physical core.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        PlanError: A graph cannot be loaded, or does not match the manifest when it runs.
    """

    def __init__(self, plan: Plan, *, threads: int | None = None) -> None:
        openvino = _openvino()
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        self._text = _Tower(core, plan, TEXT, options)
        self._image = _Tower(core, plan, IMAGE, options)
        self.embed_dim = plan.manifest.embed_dim

    def close(self) -> None:
        """Do nothing; memory is freed with the object."""

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._image.run({"pixels": pixels})

    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        return self._text.run({"ids": ids, "eot": eot})


def _openvino() -> Any:
    """Import OpenVINO without its telemetry.

    OpenVINO writes a client id below the home folder and reports each import. There is no option
    to disable that, but it uses a stub if the telemetry package is not installed.
    """
    telemetry = "openvino_telemetry"
    if telemetry in sys.modules:
        return require("openvino", "openvino")
    sys.modules[telemetry] = None  # type: ignore[assignment]  # "not installed"
    try:
        return require("openvino", "openvino")
    finally:
        del sys.modules[telemetry]


class _Tower:
    """One compiled graph."""

    def __init__(self, core: Any, plan: Plan, member: str, options: Mapping[str, Any]) -> None:
        self.where = f"{plan.path}: {member}"
        self.embed_dim = plan.manifest.embed_dim
        # A request holds the buffers of one run, and there is one request per graph.
        self.lock = threading.Lock()
        try:
            model = core.read_model(io.BytesIO(plan.take(member)))
            self.request = core.compile_model(model, "CPU", options).create_infer_request()
        except RuntimeError as error:
            raise PlanError(f"{plan.path}: OpenVINO cannot load {member}: {error}") from error

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        try:
            with self.lock:
                (output,) = self.request.infer(inputs, share_inputs=True).values()
                embeddings: NDArray[np.float32] = np.array(output)
        # OpenVINO raises ValueError for inputs with too many dimensions.
        except (RuntimeError, ValueError) as error:
            raise PlanError(
                f"{self.where} does not take what the manifest says it does ({error}). "
                "Export the plan again."
            ) from error
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embed_dim:
            raise PlanError(
                f"{self.where} gives {list(embeddings.shape)}, and the manifest says embeddings "
                f"of width {self.embed_dim}. Export the plan again."
            )
        return embeddings
