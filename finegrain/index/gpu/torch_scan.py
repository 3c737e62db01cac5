"""The scan in PyTorch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from finegrain.errors import PlanError
from finegrain.index.estimate import Ids, Vectors
from finegrain.index.gpu.halves import Halves
from finegrain.index.gpu.memory import require_memory

CPU_ROWS = 16_384
"""Rows that are widened together where the processor has no products of fp16."""


class TorchScan:
    """All products, and the highest of them.

    Args:
        halves: Vectors ``[N, D]``, copied to the device.
        device: Such as ``cuda`` or ``cpu``.
        capacity: Rows to have room for, also for those of :meth:`append`; by default ``N``.

    Raises:
        GalleryError: The GPU has no such memory free.
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
        self._room = torch.empty(shape, dtype=torch.float16, device=device)
        self._gallery = self._room[:0]
        self.append(halves)

    @staticmethod
    def require_gpu() -> None:
        """See that PyTorch has a GPU.

        Raises:
            PlanError: There is none, or this PyTorch does not see it.
        """
        if not torch.cuda.is_available():
            raise PlanError(
                f"no GPU: PyTorch {torch.__version__} sees none; use the gallery's index"
            )

    def append(self, halves: Halves) -> None:
        """See :class:`~finegrain.index.gpu.mirror.Scan`."""
        start, end = len(self._gallery), len(self._gallery) + len(halves)
        self._room[start:end] = torch.from_numpy(halves)
        self._gallery = self._room[:end]
        self.max_depth = end

    def close(self) -> None:
        """Free the memory."""
        self._room = self._gallery = self._room.new_empty(0, self._room.shape[1])
        if self._room.is_cuda:
            # What PyTorch keeps for later is not free to others, nor counted as free.
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def best(self, queries: Halves, depth: int) -> tuple[Ids, Vectors]:
        """See :class:`~finegrain.index.gpu.mirror.Scan`."""
        top = self._estimates(torch.from_numpy(queries).to(self._gallery.device)).topk(depth)
        return top.indices.cpu().numpy(), top.values.cpu().numpy()

    def _estimates(self, queries: Tensor) -> Tensor:
        """float32 ``[Q, N]``."""
        if self._gallery.is_cuda:
            return torch.mm(queries, self._gallery.T, out_dtype=torch.float32)
        slices = torch.split(self._gallery, CPU_ROWS)
        parts = [queries.float() @ rows.float().T for rows in slices]
        return torch.cat(parts, dim=1)
