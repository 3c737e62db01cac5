"""Vectors of a gallery in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np

from finegrain.errors import GalleryError
from finegrain.index.gpu.halves import Halves
from finegrain.index.gpu.memory import require_memory
from finegrain.runtime.tensorrt.build import Bucket
from finegrain.runtime.tensorrt.cuda import Cuda

CAPACITY_STEP = 65_536
"""Rows by which the gallery's engine grows: 64 MiB at width 512."""
MAX_NUMBERS = 2**31 - 1
"""Most elements of a TensorRT tensor."""
SLICE_ROWS = 16_384
"""Rows copied at once, through pinned memory."""


class ResidentGallery:
    """Vectors in fp16, with an offset per row: minus infinity for a row without a vector.

    Args:
        cuda: The GPU.
        stream: CUDA stream for copies.
        rows: Minimum capacity.
        width: Width of a vector.
        held: Receives the callbacks that free the memory.
        spare: Additional capacity, as far as TensorRT can address it.

    Raises:
        GalleryError: ``rows`` is zero, or is more than TensorRT can address or memory can hold.
    """

    def __init__(
        self, cuda: Cuda, stream: int, rows: int, width: int, held: ExitStack, *, spare: int = 0
    ) -> None:
        most = MAX_NUMBERS // width // CAPACITY_STEP * CAPACITY_STEP
        self.capacity = min(-(-(rows + spare) // CAPACITY_STEP) * CAPACITY_STEP, most)
        if not 0 < rows <= most:
            raise GalleryError(
                f"expected 1 to {most} vectors of width {width}, got {rows}; "
                "search them with the gallery's own index"
            )
        self._cuda, self._stream, self._width = cuda, stream, width
        self._rows = 0
        row_bytes = np.dtype(np.float16).itemsize
        sizes = {"gallery": self.capacity * width * row_bytes, "offsets": self.capacity * row_bytes}
        require_memory(sum(sizes.values()), cuda.free_memory())
        addresses: dict[str, int] = {}
        for name, size in sizes.items():
            addresses[name] = cuda.allocate(size)
            held.callback(cuda.free, addresses[name])
        self.addresses: Mapping[str, int] = addresses
        # Uninitialised memory may hold NaN, and NaN plus minus infinity is NaN.
        self._fill("gallery", 0, np.zeros((1, width), np.float16), self.capacity)
        self._fill("offsets", 0, np.full((1, 1), -np.inf, np.float16), self.capacity)

    @property
    def bucket(self) -> Bucket:
        """Shapes of the resident tensors, by their names in ``search.onnx``."""
        return {"gallery": (self.capacity, self._width), "offsets": (self.capacity,)}

    def append(self, halves: Halves) -> None:
        """Append vectors ``[n, D]``. The caller checks the capacity.

        Raises:
            PlanError: CUDA failed.
        """
        start = self._rows
        self._rows += len(halves)
        self._fill("gallery", start, halves, len(halves))
        self._fill("offsets", start, np.zeros((1, 1), np.float16), len(halves))

    def _fill(self, name: str, first: int, values: Halves, rows: int) -> None:
        """Copy ``rows`` rows to the GPU; a single row of ``values`` is repeated."""
        width = values.shape[1]
        row_bytes = width * values.itemsize
        values = np.broadcast_to(values, (rows, width))
        staging = self._cuda.allocate_pinned((min(SLICE_ROWS, rows), width), values.dtype)
        try:
            for start in range(0, rows, len(staging)):
                chunk = values[start : start + len(staging)]
                staging[: len(chunk)] = chunk
                address = self.addresses[name] + (first + start) * row_bytes
                self._cuda.copy_to_device(address, staging[: len(chunk)], self._stream)
                self._cuda.synchronize(self._stream)
        finally:
            self._cuda.free_pinned(staging)
