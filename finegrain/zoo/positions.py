"""Position embeddings of one grid, carried over to another."""

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

    The class token's row is kept; the others are resized with unaligned corners,
    bilinearly as IRRA does to bring CLIP's 14x14 grid to a person's 24x8, or bicubically as
    ALBEF does.

    Args:
        positions: Of the checkpoint.
        grid: Rows and columns of the model.
        finetuned: The checkpoint was trained on pictures of its own shape, so that as many
            positions as the model has are those of the model's grid. Otherwise 14x14 and
            28x7 would be taken for one another.

    Raises:
        WeightsError: ``positions`` are neither those of a square grid nor of the model's.
    """
    rows, columns = grid
    side = math.isqrt(max(0, len(positions) - 1))
    is_square = 1 + side * side == len(positions)
    as_many = len(positions) == 1 + rows * columns
    if as_many and (finetuned or not is_square or grid == (side, side)):
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
    """The first ``length`` positions of a causal text tower, ``[P, W]``.

    No token sees a later one, so a tower of a shorter context gives the same embedding for every
    caption that fits it.
    """
    return positions[:length]
