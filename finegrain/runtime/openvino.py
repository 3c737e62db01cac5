"""The OpenVINO runtime: the graphs of a plan on a CPU, with products of int8 weights."""

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

    What is not int8 is computed in fp32, also where the processor has bf16: a plan then gives
    the same embeddings on either kind of machine, and the vectors of a gallery stay comparable.

    Args:
        plan: A freshly opened plan; its graphs are moved into the compiled models.
        threads: Threads of one run; by default OpenVINO takes one a physical core.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        PlanError: A graph cannot be loaded or, once run, does not do what the plan says.
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
        """Memory is freed with the object; there is nothing else to give back."""

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._image.run({"pixels": pixels})

    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        return self._text.run({"ids": ids, "eot": eot})


def _openvino() -> Any:
    """OpenVINO without its reporter.

    OpenVINO writes a client id below the home folder and reports each import of itself. There is
    no switch for that; it uses a stub of its own where the reporter is not installed.
    """
    reporter = "openvino_telemetry"
    if reporter in sys.modules:
        return require("openvino", "openvino")
    sys.modules[reporter] = None  # type: ignore[assignment]  # "not installed"
    try:
        return require("openvino", "openvino")
    finally:
        del sys.modules[reporter]


class _Tower:
    """One compiled graph."""

    def __init__(self, core: Any, plan: Plan, member: str, options: Mapping[str, Any]) -> None:
        self.where = f"{plan.path}: {member}"
        self.embed_dim = plan.manifest.embed_dim
        # A request holds the buffers of one run, and a graph has one request.
        self.lock = threading.Lock()
        try:
            model = core.read_model(io.BytesIO(plan.take(member)))
            self.request = core.compile_model(model, "CPU", options).create_infer_request()
        except RuntimeError as error:
            raise PlanError(f"{plan.path}: OpenVINO cannot load {member}: {error}") from error

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        try:
            with self.lock:
                (found,) = self.request.infer(inputs, share_inputs=True).values()
                embeddings: NDArray[np.float32] = np.array(found)
        # ValueError is what it raises for inputs of too many dimensions.
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
