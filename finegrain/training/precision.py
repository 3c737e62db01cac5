"""Which precision training computes in."""

from __future__ import annotations

import warnings

import torch

from finegrain.recipe import Precision
from finegrain.training import processor


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type to autocast to, or None for fp32 throughout.

    ``auto`` takes bf16 where the device multiplies in it: half the bytes and about twice the
    speed. Elsewhere bf16 is emulated, and much slower than fp32. A recipe that asks for it there
    gets it, with a warning.
    """
    native = processor.computes_bf16(device)
    if precision == "bf16" and not native:
        warnings.warn(
            "the recipe asks for bf16, which this processor emulates many times slower than fp32; "
            "--set precision=auto trains in fp32 here",
            stacklevel=2,
        )
    wanted = native if precision == "auto" else precision == "bf16"
    return torch.bfloat16 if wanted else None
