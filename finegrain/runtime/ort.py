"""The ONNX Runtime runtime: the graphs of a plan on a CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidGraph,
    InvalidProtobuf,
)
from onnxruntime.capi.onnxruntime_pybind11_state import (
    NotImplemented as NotImplementedByOrt,
)

from finegrain.errors import PlanError
from finegrain.plan import IMAGE, TEXT, Plan


class OrtRuntime:
    """Runs ``text.onnx`` and ``image.onnx`` of a plan.

    Args:
        plan: A freshly opened plan; its graphs are moved into the sessions.
        threads: Threads of one run; by default ONNX Runtime takes one a physical core.

    Raises:
        PlanError: A graph cannot be loaded.
    """

    def __init__(self, plan: Plan, *, threads: int | None = None) -> None:
        self.embed_dim = plan.manifest.embed_dim
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # Otherwise its threads spin between queries and take the cores of everything else.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._text = _session(plan, TEXT, options)
        self._image = _session(plan, IMAGE, options)

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = self._image.run(["embeddings"], {"pixels": pixels})[0]
        return embeddings

    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = self._text.run(["embeddings"], {"ids": ids, "eot": eot})[
            0
        ]
        return embeddings


def _session(
    plan: Plan, member: str, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(
            plan.take(member), options, providers=["CPUExecutionProvider"]
        )
    except (Fail, InvalidGraph, InvalidProtobuf, NotImplementedByOrt) as error:
        raise PlanError(
            f"{plan.path}: ONNX Runtime {onnxruntime.__version__} cannot load {member}: {error}"
        ) from error
