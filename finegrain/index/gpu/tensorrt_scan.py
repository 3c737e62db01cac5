"""A gallery on a GPU, scanned by a caption or by a vector in one launch.

The gallery stays in the memory of the GPU as fp16. A CUDA graph runs the engine of ``text.onnx``
and, on the embedding it leaves there, that of ``search.onnx``; what comes back to the host is one
embedding and a few rows. Engines are two because a gallery that grows needs another search, which
is built in seconds, and not another tower.

Tested against stand-ins for CUDA and TensorRT, and TensorRT-RTX builds the engines. Not yet run
on a GPU.
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
    """What a caption's launch brings back.

    Attributes:
        embedding: Of the caption, ``[D]``.
        rows: Those that score highest, best first, ``[depth]``.
        estimates: Their scores, of the embedding's direction, ``[depth]``.
    """

    embedding: Vectors
    rows: Ids
    estimates: Vectors

    @property
    def query(self) -> Query:
        return Query(self.embedding.astype(np.float64))

    @property
    def sent(self) -> Vectors:
        """What the GPU took for the direction of the query."""
        return self.embedding.astype(np.float16).astype(np.float32) / np.float32(self.query.length)


class TensorRtScan:
    """A :class:`~finegrain.index.gpu.mirror.Scan` that captions can be asked of too.

    Any thread may call it; callers take turns.

    Args:
        plan: A freshly opened plan that has ``search.onnx``; its graphs are taken out.
        rows: At least so many vectors have room; none is there yet.
        spare: Room for so many more, where TensorRT can address them.
        backend, device, cache, trust_engines: As of
            :class:`~finegrain.runtime.tensorrt.TensorRtRuntime`, whose text engine it takes.

    Raises:
        PlanError: There is no GPU or no ``search.onnx``, or TensorRT refuses.
        GalleryError: There are no rows, or too many.
        MissingExtraError: TensorRT or cuda-python is not installed.
    """

    # Twice what a score loses where it is written in fp16.
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
        self.max_depth = self._ready[0].found.output(ROWS).host.shape[1]

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

        Where fewer rows were appended, the others, with minus infinity, come behind them.

        Args:
            ids: Captions as the tokenizer gives them, int32 ``[N, L]``.
            eot: Their ends, int32 ``[N]``.

        Raises:
            QueryError: Captions are longer than the plan's context, or their ends do not match.
            PlanError: CUDA failed, or the scan is closed.
        """
        check_captions(ids, eot, self._context_length)
        some = [{"ids": ids[i : i + 1], "eot": eot[i : i + 1]} for i in range(len(eot))]
        with self._lock:
            self._begin()
            return [self._answer(inputs) for inputs in some]

    def best(self, queries: Halves, depth: int) -> tuple[Ids, Vectors]:
        """See :class:`~finegrain.index.gpu.mirror.Scan`.

        Raises:
            PlanError: CUDA failed, or the scan is closed.
        """
        with self._lock:
            self._begin()
            found = [self._by_vector.run({OUTPUT: query[None]}) for query in queries]
        rows, estimates = zip(*found, strict=True)
        return np.stack(rows)[:, :depth], np.stack(estimates)[:, :depth]

    def close(self) -> None:
        """Free all that is on the GPU, after the search that is running."""
        with self._lock:
            self._cuda.activate()
            self._held.close()

    def _begin(self) -> None:
        if not self._ready:
            raise PlanError(f"{self._where}: its search is closed; open it again")
        self._cuda.activate()

    def _prepare(self, source: EngineSource, stream: int, held: ExitStack) -> None:
        """A launch for each length of a caption, shortest first, and one for a vector."""
        lengths = text_buckets(self._context_length)
        shapes = {OUTPUT: (1, source.plan.manifest.embed_dim), **self._gallery.bucket}
        text = LoadedEngine(source, self._cuda, TEXT, lengths, held)
        search = LoadedEngine(source, self._cuda, SEARCH, [shapes], held)

        def ready(first: Lane | None) -> _Ready:
            resident = dict(self._gallery.addresses)
            if first is not None:
                resident[OUTPUT] = first.output(OUTPUT).address
            found = search.lane(stream, 0, shapes, [ROWS, ESTIMATES], held, resident)
            lanes: Sequence[Lane] = [found] if first is None else [first, found]
            return _Ready(lanes[0], found, Launch(self._cuda, stream, lanes, held))

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
        # Of the direction, which is the embedding but for its last digits.
        length = Query(embedding.astype(np.float64)).length
        return Answer(embedding, rows, estimates / np.float32(length))


def require_search(plan: Plan) -> None:
    """Refuse a plan without ``search.onnx``.

    Raises:
        PlanError: There is none.
    """
    if SEARCH not in plan.manifest.sha256:
        raise PlanError(
            f"{plan.path} has no {SEARCH}; say search_depth=128 in its profile and export again"
        )


@dataclass(frozen=True, slots=True)
class _Ready:
    """A shape of input, and the launch that searches with it."""

    first: Lane
    found: Lane
    launch: Launch

    def run(self, inputs: Inputs) -> tuple[Ids, Vectors]:
        """Rows and estimates, each ``[depth]``."""
        self.first.fill(inputs)
        self.launch.run()
        # Copies: the next answer is written over the buffers.
        rows = self.found.output(ROWS).host[0].astype(np.int64)
        return rows, self.found.output(ESTIMATES).host[0].astype(np.float32)
