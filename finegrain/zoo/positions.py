"""Resizing of position embeddings to another grid or length."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from finegrain.errors import WeightsError


def resize_positions(
    positions: Tensor,
    grid: tuple[int, int],
    *,
    finetuned: bool = False,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Tensor:
    """Interpolate ``[1 + n * n, W]`` of a square grid to ``[1 + rows * columns, W]``, in fp32.

    The row of the class token is not changed. The others are interpolated with
    ``align_corners=False``: bilinearly as in IRRA, which resizes CLIP's 14x14 grid to 24x8, or
    bicubically as in ALBEF.

    Args:
        positions: Positions of the checkpoint.
        grid: Rows and columns of the model's grid.
        finetuned: The checkpoint may have a grid that is not square. If it has the same number
            of positions as the model, its grid is then assumed to be that of the model. This
            cannot be assumed of pretrained weights: 14x14 and 28x7 have the same number.
        mode: Interpolation.

    Returns:
        ``[1 + rows * columns, W]``.

    Raises:
        WeightsError: The positions are neither those of a square grid nor of the model's grid.
    """
    rows, columns = grid
    side = math.isqrt(max(0, len(positions) - 1))
    is_square = 1 + side * side == len(positions)
    same_count = len(positions) == 1 + rows * columns
    if same_count and (finetuned or not is_square or grid == (side, side)):
        return positions
    if not is_square:
        raise WeightsError(
            f"expected positions of a square grid and a class token, got {len(positions)} rows, "
            f"and the model's grid of {rows}x{columns} needs {1 + rows * columns}. Set the height "
            "and width of the checkpoint's pictures in the recipe."
        )
    first, square = positions[:1].float(), positions[1:].float()
    square = square.view(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode=mode, align_corners=False)
    return torch.cat([first, resized.flatten(2)[0].T])


def shorten_positions(positions: Tensor, length: int) -> Tensor:
    """The first ``length`` positions of a causal text tower, ``[length, W]``.

    No token attends to a later one. A tower with a shorter context therefore gives the same
    embedding for every caption that fits into it.
    """
    return positions[:length]
