"""The TensorRT runtime: the two towers of a plan on an NVIDIA GPU.

Opening the runtime prepares everything: buffers on the host and the GPU, a context for each bucket
of input shapes, and a CUDA graph that copies inputs, runs, and copies outputs with one launch. A
query then only copies into pinned memory, launches, and waits. Tested with mock objects for CUDA
and TensorRT; not yet run on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import ImageError, PlanError, QueryError
from finegrain.plan import IMAGE, TEXT, Plan
from finegrain.runtime.tensorrt.backend import BackendName, load_backend
from finegrain.runtime.tensorrt.build import Bucket, image_buckets, text_buckets
from finegrain.runtime.tensorrt.cache import EngineCache
from finegrain.runtime.tensorrt.cuda import Cuda
from finegrain.runtime.tensorrt.engines import EngineSource
from finegrain.runtime.tensorrt.lane import Inputs, Lane, Launch
from finegrain.runtime.tensorrt.loaded import LoadedEngine

OUTPUT = "embeddings"


class TensorRtRuntime:
    """Runs ``text.onnx`` and ``image.onnx`` of a plan as TensorRT engines.

    Engines are built when the plan is first opened on a machine, and stored in the user's cache
    folder. Building takes minutes with TensorRT and seconds with TensorRT-RTX.

    Any thread may call it. Each tower runs one batch at a time on its own stream, so calls of one
    tower run one after the other, and the two towers run in parallel. Close the runtime, or use
    it in a ``with`` statement.

    Args:
        plan: A freshly opened plan; its graphs are removed from it.
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        device: Number of the GPU.
        cache: Folder of built engines; by default in the user's cache folder.
        trust_engines: Load engines inside the plan. They are executable content: use this only
            for plans whose author you trust to run code on your machine.

    Raises:
        PlanError: There is no GPU, or TensorRT cannot build or load an engine.
        MissingExtraError: TensorRT or cuda-python is not installed.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        backend: BackendName = "tensorrt",
        device: int = 0,
        cache: Path | None = None,
        trust_engines: bool = False,
    ) -> None:
        module = load_backend(backend)
        cuda = Cuda(device)
        manifest = plan.manifest
        self.embed_dim = manifest.embed_dim
        self._context_length = manifest.context_length
        self._picture = (3, manifest.height, manifest.width)
        source = EngineSource(
            plan, module, cuda.device(), EngineCache(cache), trust_engines=trust_engines
        )
        with ExitStack() as held:
            self._text = _Tower(source, cuda, TEXT, text_buckets(manifest.context_length))
            held.callback(self._text.close)
            self._image = _Tower(
                source, cuda, IMAGE, image_buckets(manifest.height, manifest.width)
            )
            held.callback(self._image.close)
            self._held = held.pop_all()

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode pictures, uint8 ``[N, 3, H, W]``, to float32 ``[N, D]``.

        Raises:
            ImageError: Pictures are not of the plan's size.
            PlanError: CUDA failed, or the runtime is closed.
        """
        if pixels.shape[1:] != self._picture:
            raise ImageError(f"expected pictures of shape {self._picture}, got {pixels.shape[1:]}")
        return self._image.run({"pixels": pixels})

    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        """Encode captions, int32 ``[N, L]`` and ``[N]``, to float32 ``[N, D]``.

        Captions are padded with zeros after the end of text, which causal attention ignores.

        Raises:
            QueryError: Captions are longer than the plan's context, or their ends do not match.
            PlanError: CUDA failed, or the runtime is closed.
        """
        check_captions(ids, eot, self._context_length)
        return self._text.run({"ids": ids, "eot": eot})

    def close(self) -> None:
        """Free all memory of the GPU, after the running batches."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_captions(ids: NDArray[np.int32], eot: NDArray[np.int32], context_length: int) -> None:
    """Check that captions fit into a bucket.

    Raises:
        QueryError: Captions are longer than the context, or their ends do not match.
    """
    if ids.ndim != 2 or eot.shape != ids.shape[:1]:
        raise QueryError(f"expected ids [N, L] and ends [N], got {ids.shape} and {eot.shape}")
    if ids.shape[1] > context_length:
        raise QueryError(
            f"expected captions of at most {context_length} tokens, got {ids.shape[1]}"
        )


@dataclass(frozen=True, slots=True)
class _Ready:
    """A bucket of a tower, and its launch."""

    lane: Lane
    launch: Launch

    @property
    def batch(self) -> int:
        return len(self.lane.output(OUTPUT).host)

    @property
    def volume(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.lane.bucket.values())

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embeddings ``[N, D]`` of ``N`` input rows, at most a batch."""
        self.lane.fill(inputs)
        self.launch.run()
        rows = len(next(iter(inputs.values())))
        # A copy, because the next batch overwrites the buffer.
        embeddings: NDArray[np.float32] = self.lane.output(OUTPUT).host[:rows].astype(np.float32)
        return embeddings


class _Tower:
    """One engine, its stream, and a lane for each bucket."""

    def __init__(
        self,
        source: EngineSource,
        cuda: Cuda,
        member: str,
        buckets: Sequence[Bucket],
    ) -> None:
        self._cuda = cuda
        self._where = f"{source.plan.path}: {member}"
        self._lock = threading.Lock()
        self._ready: list[_Ready] = []
        with ExitStack() as held:
            stream = cuda.create_stream()
            held.callback(cuda.destroy_stream, stream)
            engine = LoadedEngine(source, cuda, member, buckets, held)
            held.callback(self._ready.clear)
            for profile, bucket in enumerate(buckets):
                lane = engine.lane(stream, profile, bucket, [OUTPUT], held)
                self._ready.append(_Ready(lane, Launch(cuda, stream, [lane], held)))
                width = lane.output(OUTPUT).host.shape[-1]
                self._check_width(source.plan.manifest.embed_dim, width)
            self._ready.sort(key=lambda ready: ready.volume)
            engine.save_compiled()
            self._held = held.pop_all()

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embeddings ``[N, D]`` of any number of rows, computed in batches."""
        with self._lock:
            if not self._ready:
                raise PlanError(f"{self._where}: its runtime is closed; open the plan again")
            self._cuda.activate()
            parts = [self._fitting(part).run(part) for part in self._split(inputs)]
        return np.concatenate(parts)

    def close(self) -> None:
        with self._lock:
            self._cuda.activate()
            self._held.close()

    def _check_width(self, stated: int, got: int) -> None:
        if got != stated:
            raise PlanError(
                f"{self._where} gives embeddings of width {got}, and the manifest says {stated}. "
                "Export the plan again."
            )

    def _split(self, inputs: Inputs) -> Iterator[Inputs]:
        most = max(ready.batch for ready in self._ready)
        rows = len(next(iter(inputs.values())))
        # At least one batch, so that zero rows give an array of the right width.
        for start in range(0, max(rows, 1), most):
            yield {name: array[start : start + most] for name, array in inputs.items()}

    def _fitting(self, inputs: Inputs) -> _Ready:
        return next(ready for ready in self._ready if ready.lane.fits(inputs))
