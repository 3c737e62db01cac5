"""The ONNX Runtime runtime: the graphs of a plan on a CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    RuntimeException,
)
from onnxruntime.capi.onnxruntime_pybind11_state import (
    NotImplemented as NotImplementedByOrt,
)

from finegrain.errors import PlanError
from finegrain.plan import IMAGE, MATCH, TEXT, Plan
from finegrain.records import Matched, PictureTokens
from finegrain.runtime.byte_products import SLOWER_AND_EXACT, products_saturate
from finegrain.runtime.forks import never_destroy, pause_at_fork

# Needed on Windows, and if onnxruntime was imported before finegrain set its variable.
onnxruntime.disable_telemetry_events()

_ORT_ERRORS = (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplementedByOrt,
    RuntimeException,
)

MAY_SATURATE = "int8"
"""Precision of graphs with int8 products that may saturate, as finegrain 0.1 exported them. Plans
for OpenVINO state the same precision, but have no such products and are not affected."""


class OrtRuntime:
    """Runs ``text.onnx`` and ``image.onnx`` of a plan, and ``match.onnx`` if there is one.

    Args:
        plan: A freshly opened plan; its graphs are moved into the sessions.
        threads: Threads per run; by default one per physical core.

    Raises:
        PlanError: A graph cannot be loaded, or does not match the manifest when it runs.
    """

    def __init__(self, plan: Plan, *, threads: int | None = None) -> None:
        self.path = plan.path
        self.embed_dim = plan.manifest.embed_dim
        self._fingerprint = plan.manifest.fingerprint
        self._threads = threads
        self._process = os.getpid()
        self._load(plan)
        pause_at_fork(self)

    def _load(self, plan: Plan) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads or 0
        # Spinning threads use a core each between queries. Spinning only during a run
        # (session.force_spinning_stop) saves up to 1 ms per query on idle cores, but more than
        # doubles the median time on busy cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if MAY_SATURATE in plan.manifest.precision.values() and products_saturate():
            options.add_session_config_entry(SLOWER_AND_EXACT, "1")
        self._text = _session(plan, TEXT, options)
        self._image = _session(plan, IMAGE, options)
        self._match = _session(plan, MATCH, options) if plan.manifest.match else None
        # Otherwise the tokens of a match head would be computed for every embedding.
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True

    def before_fork(self) -> None:
        """Do nothing; the parent keeps its sessions."""

    def after_fork(self) -> None:
        """Never destroy inherited sessions, whose threads exist only in the parent."""
        if self._process != os.getpid():
            for session in (self._text, self._image, self._match):
                never_destroy(session)

    def reopen(self) -> None:
        """Load the graphs from the file of the plan again, in a forked process.

        Raises:
            PlanError: The file no longer exists, or is another plan.
        """
        plan = Plan(self.path)
        if plan.manifest.fingerprint != self._fingerprint:
            raise PlanError(
                f"{self.path} is another plan than the one that was opened before this process was "
                "forked. Open a Searcher in this process."
            )
        self._load(plan)
        self._process = os.getpid()

    def close(self) -> None:
        """Do nothing; memory is freed with the object."""

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        (embeddings,) = self._run(self._image, IMAGE, {"pixels": pixels}, ["embeddings"])
        return self._checked(embeddings, IMAGE)

    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        (embeddings,) = self._run(self._text, TEXT, {"ids": ids, "eot": eot}, ["embeddings"])
        return self._checked(embeddings, TEXT)

    @property
    def has_match_head(self) -> bool:
        return self._match is not None

    def encode_with_tokens(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], PictureTokens]:
        """See :class:`~finegrain.runtime.base.MatchRuntime`."""
        names = ["embeddings", "codes", "scales"]
        embeddings, codes, scales = self._run(self._image, IMAGE, {"pixels": pixels}, names)
        return self._checked(embeddings, IMAGE), PictureTokens(codes=codes, scales=scales)

    def match(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], tokens: PictureTokens
    ) -> Matched:
        """See :class:`~finegrain.runtime.base.MatchRuntime`."""
        assert self._match is not None  # the encoder checks has_match_head first
        inputs = {"ids": ids, "eot": eot, "codes": tokens.codes, "scales": tokens.scales}
        # Plans of earlier versions, and match heads that rank by logits, have no scores.
        has_scores = any(output.name == "scores" for output in self._match.get_outputs())
        names = ["logits", "scores"] if has_scores else ["logits"]
        logits, *scores = self._run(self._match, MATCH, inputs, names)
        return Matched(logits, *(scores or [logits]))

    def _run(
        self,
        session: onnxruntime.InferenceSession,
        member: str,
        inputs: Mapping[str, NDArray[np.generic]],
        outputs: Sequence[str],
    ) -> list[NDArray[Any]]:
        # ONNX Runtime raises ValueError for names that are not in the graph.
        try:
            arrays: list[NDArray[Any]] = session.run(outputs, inputs, self._run_options)
        except (*_ORT_ERRORS, ValueError) as error:
            raise PlanError(
                f"{self.path}: {member} does not take what the manifest says it does ({error}). "
                "Export the plan again."
            ) from error
        return arrays

    def _checked(self, embeddings: NDArray[np.float32], member: str) -> NDArray[np.float32]:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embed_dim:
            raise PlanError(
                f"{self.path}: the manifest says that {member} gives embeddings of width "
                f"{self.embed_dim}, and it gives {list(embeddings.shape)}. Export the plan again."
            )
        return embeddings


def _session(
    plan: Plan, member: str, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(
            plan.take(member), options, providers=["CPUExecutionProvider"]
        )
    except _ORT_ERRORS as error:
        raise PlanError(
            f"{plan.path}: ONNX Runtime {onnxruntime.__version__} cannot load {member}: {error}"
        ) from error
