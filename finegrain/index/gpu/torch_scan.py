"""A scan by PyTorch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from finegrain.errors import PlanError
from finegrain.index.estimate import Ids, Vectors
from finegrain.index.gpu.halves import Halves
from finegrain.index.gpu.memory import require_memory

CPU_ROWS = 16_384
"""Rows converted to float32 at once on a CPU, which may lack fp16 arithmetic."""


class TorchScan:
    """Computes all inner products and selects the highest.

    Args:
        halves: Vectors ``[N, D]``, copied to the device.
        device: Device such as ``cuda`` or ``cpu``.
        capacity: Most rows after calls of :meth:`append`; ``N`` by default.

    Raises:
        GalleryError: The GPU has too little free memory.
    """

    coarseness = 0.0

    def __init__(
        self, halves: Halves, device: str | torch.device, *, capacity: int | None = None
    ) -> None:
        self.capacity = len(halves) if capacity is None else capacity
        shape = (self.capacity, halves.shape[1])
        if torch.device(device).type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            require_memory(shape[0] * shape[1] * halves.itemsize, free)
        self._buffer = torch.empty(shape, dtype=torch.float16, device=device)
        self._gallery = self._buffer[:0]
        self.append(halves)

    @staticmethod
    def require_gpu() -> None:
        """Check that PyTorch can use a GPU.

        Raises:
            PlanError: There is no GPU, or this build of PyTorch cannot use it.
        """
        if not torch.cuda.is_available():
            raise PlanError(
                f"no GPU: PyTorch {torch.__version__} sees none; use the gallery's index"
            )

    def append(self, halves: Halves) -> None:
        """See :class:`~finegrain.index.gpu.mirror.Scan`."""
        start, end = len(self._gallery), len(self._gallery) + len(halves)
        self._buffer[start:end] = torch.from_numpy(halves)
        self._gallery = self._buffer[:end]
        self.max_depth = end

    def close(self) -> None:
        """Free the memory."""
        self._buffer = self._gallery = self._buffer.new_empty(0, self._buffer.shape[1])
        if self._buffer.is_cuda:
            # Memory in the cache of PyTorch is not free for others, nor counted as free.
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def best(self, queries: Halves, depth: int) -> tuple[Ids, Vectors]:
        """See :class:`~finegrain.index.gpu.mirror.Scan`."""
        top = self._estimates(torch.from_numpy(queries).to(self._gallery.device)).topk(depth)
        return top.indices.cpu().numpy(), top.values.cpu().numpy()

    def _estimates(self, queries: Tensor) -> Tensor:
        """Estimates, float32 ``[Q, N]``."""
        if self._gallery.is_cuda:
            return torch.mm(queries, self._gallery.T, out_dtype=torch.float32)
        slices = torch.split(self._gallery, CPU_ROWS)
        parts = [queries.float() @ rows.float().T for rows in slices]
        return torch.cat(parts, dim=1)
