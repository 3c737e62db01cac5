"""The colours of a grey picture: what is asked for, and the loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = (0.299, 0.587, 0.114)
_BLUE_RANGE, _RED_RANGE = 1.772, 1.402


def grey(pixels: Tensor) -> Tensor:
    """Luma of RGB pixels: uint8 ``[N, 3, H, W]`` to 0..1 in fp32 ``[N, 1, H, W]``."""
    weights = torch.tensor(_LUMA, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() / 255 * weights).sum(dim=1, keepdim=True)


def chroma(pixels: Tensor) -> Tensor:
    """What :func:`grey` leaves out: blue and red over luma, ``[N, 2, H, W]`` in -1..1.

    The colour differences of ITU-R BT.601 (section 2.5.2), at twice their size. They are 0
    for grey, and linear in the pixels, so that the mean over a cell is that of its colour.
    """
    luma = grey(pixels)[:, 0]
    red, blue = pixels[:, 0].float() / 255, pixels[:, 2].float() / 255
    return 2 * torch.stack([(blue - luma) / _BLUE_RANGE, (red - luma) / _RED_RANGE], dim=1)


def colorization(predicted: Tensor, pixels: Tensor) -> Tensor:
    """Mean squared error of the predicted chroma of each cell.

    Args:
        predicted: ``[K * N, 2, h, w]``: of each picture as told by ``K`` captions.
        pixels: The pictures in colour, uint8 ``[N, 3, H, W]``.
    """
    height, width = predicted.shape[-2:]
    cells = F.adaptive_avg_pool2d(chroma(pixels), (height, width))
    captions = len(predicted) // len(pixels)
    return F.mse_loss(predicted.float(), cells.repeat_interleave(captions, dim=0))
