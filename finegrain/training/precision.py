"""Which precision training computes in."""

from __future__ import annotations

import torch

from finegrain.recipe import Precision


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type to autocast to, or None for fp32 throughout.

    ``auto`` takes bf16 where the processor multiplies in it: half the bytes and about
    twice the speed. Elsewhere bf16 is emulated, and slower than fp32.
    """
    if precision == "auto":
        precision = "bf16" if _computes_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
