"""Position embeddings of one grid, carried over to another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from finegrain.errors import WeightsError


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Interpolate ``[1 + n * n, W]`` of a square grid to ``[1 + rows * columns, W]``.

    The class token's row is kept; the others are resized bilinearly with unaligned
    corners, as IRRA does to bring CLIP's 14x14 grid to a person's 24x8.

    Raises:
        WeightsError: ``positions`` are not those of a square grid and a class token.
    """
    rows, columns = grid
    if len(positions) == 1 + rows * columns:
        return positions
    side = round((len(positions) - 1) ** 0.5)
    if 1 + side * side != len(positions):
        raise WeightsError(
            f"expected positions of a square grid and a class token, got {len(positions)} rows, "
            f"and the model's grid of {rows}x{columns} needs {1 + rows * columns}"
        )
    first, square = positions[:1], positions[1:].float()
    square = square.view(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([first, resized.flatten(2)[0].T.to(positions.dtype)])
