"""The precision of training."""

from __future__ import annotations

import warnings

import torch

from finegrain.errors import FinegrainWarning
from finegrain.recipe import Precision
from finegrain.runtime import processor


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type for autocast, or None to train in fp32.

    ``auto`` uses bf16 if the device multiplies in it natively, which takes half the memory and
    is about twice as fast. Other devices emulate bf16, which is much slower than fp32. There, a
    recipe with ``bf16`` still trains in bf16, with a warning.
    """
    native = processor.computes_bf16(device)
    if precision == "bf16" and not native:
        warnings.warn(
            "the recipe asks for bf16, which this processor emulates many times slower than fp32; "
            "--set precision=auto trains in fp32 here",
            FinegrainWarning,
            stacklevel=2,
        )
    uses_bf16 = native if precision == "auto" else precision == "bf16"
    return torch.bfloat16 if uses_bf16 else None
