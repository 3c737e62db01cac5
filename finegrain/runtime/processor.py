"""Native number formats of this machine in PyTorch.

All code that chooses between bf16 and fp32 uses this module. bf16 works on every processor, but
most emulate it: a product of two 256 x 256 matrices then takes about thirty times as long as in
fp32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from finegrain.runtime.instructions import this_processor

if TYPE_CHECKING:
    import torch

_ABOVE_AVX2 = frozenset({"AVX-512", "VNNI", "AMX", "bf16"})

LIMITS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "ATEN_CPU_CAPABILITY": {"DEFAULT": _ABOVE_AVX2 | {"AVX2"}, "AVX2": _ABOVE_AVX2},
    "ONEDNN_MAX_CPU_ISA": {
        "SSE41": _ABOVE_AVX2 | {"AVX2"},
        "AVX": _ABOVE_AVX2 | {"AVX2"},
        "AVX2": _ABOVE_AVX2,
        "AVX2_VNNI": _ABOVE_AVX2 - {"VNNI"},
        "AVX2_VNNI_2": _ABOVE_AVX2 - {"VNNI"},
        "AVX512_CORE": _ABOVE_AVX2 - {"AVX-512"},
        "AVX512_CORE_VNNI": frozenset({"AMX", "bf16"}),
        "AVX512_CORE_BF16": frozenset({"AMX"}),
        "AVX512_CORE_FP16": frozenset({"AMX"}),
    },
}
"""Environment variables that limit PyTorch or oneDNN to older instruction sets, and the
:data:`~finegrain.runtime.instructions.INSTRUCTIONS` that each of their values disables."""


def usable_instructions() -> tuple[str, ...]:
    """The instruction sets of the processor, without those that the environment disables."""
    disabled: set[str] = set()
    for variable, values in LIMITS.items():
        disabled |= values.get(os.environ.get(variable, "").upper(), frozenset())
    return tuple(name for name in this_processor().instructions if name not in disabled)


def computes_bf16(device: torch.device) -> bool:
    """Whether a device multiplies matrices in bf16 natively."""
    if device.type == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return "bf16" in usable_instructions()


def matmul_dtype(device: torch.device) -> torch.dtype:
    """bf16 if the device computes in it natively, else fp32; for products of low precision."""
    import torch

    return torch.bfloat16 if computes_bf16(device) else torch.float32
