"""A scan by FAISS on a GPU."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from finegrain.errors import MissingExtraError, PlanError
from finegrain.index.estimate import Ids, Vectors
from finegrain.index.gpu.halves import Halves
from finegrain.index.gpu.memory import require_memory
from finegrain.runtime.tensorrt.cuda import Cuda

GPU_DEPTH = 2048
"""Most results that FAISS returns per query on a GPU."""


class FaissScan:
    """The highest inner products by a flat FAISS index that stores fp16.

    Args:
        index: An empty index for inner products.
        halves: Vectors ``[N, D]``, copied into the index.
        max_depth: Most results that the index returns per query.
        capacity: Most rows after calls of :meth:`append`; ``N`` by default.
    """

    coarseness = 0.0

    def __init__(
        self,
        index: faiss.Index,
        halves: Halves,
        *,
        max_depth: int,
        capacity: int | None = None,
    ) -> None:
        self._index = index
        self.capacity = len(halves) if capacity is None else capacity
        self.max_depth = max_depth
        self.append(halves)

    @classmethod
    def on_gpu(cls, halves: Halves, device: int = 0, *, capacity: int | None = None) -> FaissScan:
        """Create the scan on a GPU.

        Raises:
            MissingExtraError: The installed FAISS is the one for CPUs.
            PlanError: There is no such GPU.
            GalleryError: The GPU has too little free memory.
        """
        cls.require_gpu(device)
        rows = len(halves) if capacity is None else capacity
        require_memory(rows * halves.shape[1] * halves.itemsize, Cuda(device).free_memory())
        resources = faiss.StandardGpuResources()
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = device, True
        index: Any = faiss.GpuIndexFlatIP(resources, halves.shape[1], config)
        # The index uses the resources, but its Python object does not keep them alive.
        index.resources = resources
        return cls(index, halves, max_depth=GPU_DEPTH, capacity=rows)

    @staticmethod
    def is_for_gpus() -> bool:
        """Whether the installed FAISS is the one for GPUs."""
        return hasattr(faiss, "StandardGpuResources")

    @classmethod
    def require_gpu(cls, device: int = 0) -> None:
        """Check that FAISS can use a GPU.

        Raises:
            MissingExtraError: The installed FAISS is the one for CPUs.
            PlanError: There is no such GPU.
        """
        if not cls.is_for_gpus():
            raise MissingExtraError(
                "expected FAISS for GPUs, got the one for CPUs. Install it with: "
                'pip uninstall faiss-cpu; pip install "finegrain[gpu]"'
            )
        count = faiss.get_num_gpus()
        if device >= count:
            raise PlanError(f"no GPU: {count} found, {device} asked for; use the gallery's index")

    def append(self, halves: Halves) -> None:
        """See :class:`~finegrain.index.gpu.mirror.Scan`."""
        self._index.add(halves.astype(np.float32))

    def close(self) -> None:
        """Free the memory."""
        self._index.reset()

    def best(self, queries: Halves, depth: int) -> tuple[Ids, Vectors]:
        """See :class:`~finegrain.index.gpu.mirror.Scan`."""
        estimates, rows = self._index.search(queries.astype(np.float32), depth)
        return rows, estimates
