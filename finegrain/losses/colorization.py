"""The loss of colouring a grey picture, and its input and target."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = (0.299, 0.587, 0.114)
_BLUE_RANGE, _RED_RANGE = 1.772, 1.402


def grey(pixels: Tensor) -> Tensor:
    """Luma of RGB pixels: uint8 ``[N, 3, H, W]`` to fp32 in 0..1, ``[N, 1, H, W]``."""
    weights = torch.tensor(_LUMA, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() / 255 * weights).sum(dim=1, keepdim=True)


def chroma(pixels: Tensor) -> Tensor:
    """Chroma of RGB pixels (blue and red minus luma): ``[N, 2, H, W]`` in -1..1.

    These are the colour differences of ITU-R BT.601 (section 2.5.2), multiplied by 2. They are
    0 for grey. They are linear in the pixels: the mean chroma of a cell is the chroma of its
    mean colour.

    Args:
        pixels: uint8 ``[N, 3, H, W]``.
    """
    luma = grey(pixels)[:, 0]
    red, blue = pixels[:, 0].float() / 255, pixels[:, 2].float() / 255
    return 2 * torch.stack([(blue - luma) / _BLUE_RANGE, (red - luma) / _RED_RANGE], dim=1)


def colorization(predicted: Tensor, pixels: Tensor) -> Tensor:
    """Mean squared error of the predicted chroma of each cell.

    Source: the colouring task of LapsCore (Wu et al., ICCV 2021); see
    :mod:`finegrain.methods.color_tasks`.

    Args:
        predicted: Predicted chroma, ``[K * N, 2, h, w]``: one prediction for each of the ``K``
            captions of a picture.
        pixels: The pictures in colour, uint8 ``[N, 3, H, W]``.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> from finegrain.losses.colorization import colorization
        >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
        >>> colorization(torch.zeros(1, 2, 1, 1), red)
        tensor(0.5569)
    """
    height, width = predicted.shape[-2:]
    cells = F.adaptive_avg_pool2d(chroma(pixels), (height, width))
    captions = len(predicted) // len(pixels)
    return F.mse_loss(predicted.float(), cells.repeat_interleave(captions, dim=0))
