"""What this machine's processor computes natively in PyTorch.

Everything that chooses between bf16 and fp32 asks here. bf16 works on every processor, but most
emulate it: a product of two 256 x 256 matrices then takes about thirty times as long as in fp32.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PYTORCH_LIMIT, _ONEDNN_LIMITS = "ATEN_CPU_CAPABILITY", ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that make PyTorch and oneDNN compute as on an older processor."""

_ONEDNN_WITHOUT_BF16 = frozenset(
    {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
)
"""Values of oneDNN's variable that leave no multiplication in bf16."""

_KINDS: Mapping[str, str] = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 with bf16",
    "avx512_f": "AVX-512",
    "avx2": "AVX2",
    "bf16": "Arm with bf16",
    "neon": "Arm",
}
"""Names of instruction sets, the most capable first, by PyTorch's name of what they bring."""


def computes_bf16(device: torch.device) -> bool:
    """Whether a device multiplies matrices in bf16 by instructions of its own.

    A processor that an environment variable limits to older instructions is judged as the older
    one.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = _capabilities()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def matmul_dtype(device: torch.device) -> torch.dtype:
    """bf16 where a device computes in it, else fp32: for products that bear few digits."""
    import torch

    return torch.bfloat16 if computes_bf16(device) else torch.float32


def instruction_set() -> str:
    """The most capable instruction set that PyTorch uses here, such as ``AVX2``."""
    capabilities = _capabilities()
    return next(
        (kind for name, kind in _KINDS.items() if capabilities.get(name)), platform.machine()
    )


def processor_name() -> str:
    """The name that the processor states, such as ``Intel Xeon``."""
    import torch

    name = torch.cpu.get_capabilities().get("cpu_name")
    return str(name or platform.processor() or platform.machine())


def _capabilities() -> Mapping[str, object]:
    """What the processor has, less what the environment forbids PyTorch to use."""
    import torch

    capabilities: dict[str, object] = dict(torch.cpu.get_capabilities())
    onednn = next((os.environ[name] for name in _ONEDNN_LIMITS if name in os.environ), "")
    limited = os.environ.get(_PYTORCH_LIMIT, "").lower() in ("default", "avx2")
    if limited or onednn.upper() in _ONEDNN_WITHOUT_BF16:
        capabilities.update(amx_bf16=False, avx512_bf16=False, bf16=False)
    if limited:
        capabilities.update(avx512_f=False)
    return capabilities
