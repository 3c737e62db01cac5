"""A search on a GPU by caption or by vector, in one launch.

The gallery stays in the memory of the GPU as fp16. A CUDA graph runs the engine of ``text.onnx``,
then the engine of ``search.onnx`` on the resulting embedding, which stays on the GPU. Only one
embedding and a few rows are copied to the host. There are two engines because a growing gallery
needs a new search engine, which is built in seconds, but not a new text tower.

Tested with mock objects for CUDA and TensorRT, and with the real builder of TensorRT-RTX. Not yet
run on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import PlanError
from finegrain.index.estimate import Ids, Query, Vectors
from finegrain.index.gpu.halves import Halves
from finegrain.index.gpu.resident import ResidentGallery
from finegrain.plan import SEARCH, TEXT, Plan
from finegrain.runtime.tensorrt.backend import BackendName, load_backend
from finegrain.runtime.tensorrt.build import text_buckets
from finegrain.runtime.tensorrt.cache import EngineCache
from finegrain.runtime.tensorrt.cuda import Cuda
from finegrain.runtime.tensorrt.engines import EngineSource
from finegrain.runtime.tensorrt.lane import Inputs, Lane, Launch
from finegrain.runtime.tensorrt.loaded import LoadedEngine
from finegrain.runtime.tensorrt.runner import OUTPUT, check_captions

ROWS, ESTIMATES = "rows", "estimates"


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Result of a launch with a caption.

    Attributes:
        embedding: Embedding of the caption, ``[D]``.
        rows: Rows with the highest scores, best first, ``[depth]``.
        estimates: Estimated scores of the embedding's direction, ``[depth]``.
    """

    embedding: Vectors
    rows: Ids
    estimates: Vectors

    @property
    def query(self) -> Query:
        return Query(self.embedding.astype(np.float64))

    @property
    def sent(self) -> Vectors:
        """The query's direction after rounding on the GPU."""
        return self.embedding.astype(np.float16).astype(np.float32) / np.float32(self.query.length)


class TensorRtScan:
    """A :class:`~finegrain.index.gpu.mirror.Scan` that also searches by caption.

    Any thread may call it; calls run one after the other.

    Args:
        plan: A freshly opened plan with ``search.onnx``; its graphs are removed from it.
        rows: Minimum capacity; the scan is empty at first.
        spare: Additional capacity, as far as TensorRT can address it.
        backend, device, cache, trust_engines: See
            :class:`~finegrain.runtime.tensorrt.TensorRtRuntime`. Both share the text engine.

    Raises:
        PlanError: There is no GPU or no ``search.onnx``, or TensorRT cannot build an engine.
        GalleryError: There are no rows, or too many.
        MissingExtraError: TensorRT or cuda-python is not installed.
    """

    # Twice the rounding error of a score in fp16.
    coarseness = 2.0**-10

    def __init__(
        self,
        plan: Plan,
        rows: int,
        *,
        spare: int = 0,
        backend: BackendName = "tensorrt",
        device: int = 0,
        cache: Path | None = None,
        trust_engines: bool = False,
    ) -> None:
        require_search(plan)
        self._context_length = plan.manifest.context_length
        self._where = str(plan.path)
        self._lock = threading.Lock()
        self._ready: list[_Ready] = []
        module = load_backend(backend)
        self._cuda = Cuda(device)
        source = EngineSource(
            plan, module, self._cuda.device(), EngineCache(cache), trust_engines=trust_engines
        )
        with ExitStack() as held:
            stream = self._cuda.create_stream()
            held.callback(self._cuda.destroy_stream, stream)
            width = plan.manifest.embed_dim
            self._gallery = ResidentGallery(self._cuda, stream, rows, width, held, spare=spare)
            held.callback(self._ready.clear)
            self._prepare(source, stream, held)
            self._held = held.pop_all()
        self.capacity = self._gallery.capacity
        self.max_depth = self._ready[0].search.output(ROWS).host.shape[1]

    def append(self, halves: Halves) -> None:
        """See :class:`~finegrain.index.gpu.mirror.Scan`.

        Raises:
            PlanError: CUDA failed, or the scan is closed.
        """
        with self._lock:
            self._begin()
            self._gallery.append(halves)

    def ask(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> list[Answer]:
        """The embedding of each caption, and the ``max_depth`` rows that it scores highest.

        If fewer rows were appended, unused rows with minus infinity come last.

        Args:
            ids: Token ids of captions, int32 ``[N, L]``.
            eot: End-of-text positions, int32 ``[N]``.

        Raises:
            QueryError: Captions are longer than the plan's context, or their ends do not match.
            PlanError: CUDA failed, or the scan is closed.
        """
        check_captions(ids, eot, self._context_length)
        captions = [{"ids": ids[i : i + 1], "eot": eot[i : i + 1]} for i in range(len(eot))]
        with self._lock:
            self._begin()
            return [self._answer(inputs) for inputs in captions]

    def best(self, queries: Halves, depth: int) -> tuple[Ids, Vectors]:
        """See :class:`~finegrain.index.gpu.mirror.Scan`.

        Raises:
            PlanError: CUDA failed, or the scan is closed.
        """
        with self._lock:
            self._begin()
            results = [self._by_vector.run({OUTPUT: query[None]}) for query in queries]
        rows, estimates = zip(*results, strict=True)
        return np.stack(rows)[:, :depth], np.stack(estimates)[:, :depth]

    def close(self) -> None:
        """Free all memory of the GPU, after the running search."""
        with self._lock:
            self._cuda.activate()
            self._held.close()

    def _begin(self) -> None:
        if not self._ready:
            raise PlanError(f"{self._where}: its search is closed; open it again")
        self._cuda.activate()

    def _prepare(self, source: EngineSource, stream: int, held: ExitStack) -> None:
        """Create a launch for each caption length, shortest first, and one for a vector."""
        lengths = text_buckets(self._context_length)
        shapes = {OUTPUT: (1, source.plan.manifest.embed_dim), **self._gallery.bucket}
        text = LoadedEngine(source, self._cuda, TEXT, lengths, held)
        search = LoadedEngine(source, self._cuda, SEARCH, [shapes], held)

        def ready(first: Lane | None) -> _Ready:
            resident = dict(self._gallery.addresses)
            if first is not None:
                resident[OUTPUT] = first.output(OUTPUT).address
            last = search.lane(stream, 0, shapes, [ROWS, ESTIMATES], held, resident)
            lanes: Sequence[Lane] = [last] if first is None else [first, last]
            return _Ready(lanes[0], last, Launch(self._cuda, stream, lanes, held))

        self._by_vector = ready(None)
        for profile, bucket in enumerate(lengths):
            if bucket["eot"] == (1,):
                self._ready.append(ready(text.lane(stream, profile, bucket, [OUTPUT], held)))
        text.save_compiled()
        search.save_compiled()

    def _answer(self, inputs: Inputs) -> Answer:
        ready = next(ready for ready in self._ready if ready.first.fits(inputs))
        rows, estimates = ready.run(inputs)
        embedding = ready.first.output(OUTPUT).host[0].astype(np.float32)
        # Scale to the direction. The embedding has length 1 except for rounding.
        length = Query(embedding.astype(np.float64)).length
        return Answer(embedding, rows, estimates / np.float32(length))


def require_search(plan: Plan) -> None:
    """Check that a plan has ``search.onnx``.

    Raises:
        PlanError: It does not.
    """
    if SEARCH not in plan.manifest.sha256:
        raise PlanError(
            f"{plan.path} has no {SEARCH}; say search_depth=128 in its profile and export again"
        )


@dataclass(frozen=True, slots=True)
class _Ready:
    """A launch for one shape of input.

    Attributes:
        first: Lane that receives the input.
        search: Lane that returns rows and estimates.
        launch: Runs both lanes, which may be the same.
    """

    first: Lane
    search: Lane
    launch: Launch

    def run(self, inputs: Inputs) -> tuple[Ids, Vectors]:
        """Rows and estimates, each ``[depth]``."""
        self.first.fill(inputs)
        self.launch.run()
        # Copies, because the next run overwrites the buffers.
        rows = self.search.output(ROWS).host[0].astype(np.int64)
        return rows, self.search.output(ESTIMATES).host[0].astype(np.float32)
