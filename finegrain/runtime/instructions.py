"""Instruction sets of this processor that affect the speed of finegrain."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from archspec import cpu

X86 = ("x86_64", "amd64")

INSTRUCTIONS: Mapping[str, tuple[frozenset[str], ...]] = {
    "AVX2": (frozenset({"avx2", "fma"}),),
    "AVX-512": (frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}),),
    "VNNI": (frozenset({"avx512_vnni"}), frozenset({"avx_vnni"})),
    "AMX": (frozenset({"amx_tile", "amx_int8"}),),
    "NEON": (frozenset({"asimd"}), frozenset({"neon"})),
    "dotprod": (frozenset({"asimddp"}),),
    "i8mm": (frozenset({"i8mm"}),),
    "bf16": (frozenset({"avx512_bf16"}), frozenset({"amx_bf16"}), frozenset({"bf16"})),
}
"""Readable names of instruction sets, and their groups of archspec features.

A processor has an instruction set if it has all features of one group."""

_X86_ONLY = ("AVX2", "AVX-512", "VNNI", "AMX")
_ARM_ONLY = ("NEON", "dotprod", "i8mm")


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor and its instruction sets.

    Attributes:
        name: Brand name.
        machine: Architecture, such as ``x86_64`` or ``aarch64``.
        instructions: Names from :data:`INSTRUCTIONS` that it has, in that order.
    """

    name: str
    machine: str
    instructions: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Names from :data:`INSTRUCTIONS` of its architecture that it lacks."""
        others = _ARM_ONLY if self.machine in X86 else _X86_ONLY
        return tuple(n for n in INSTRUCTIONS if n not in (*self.instructions, *others))


def processor_of(features: frozenset[str], *, name: str, machine: str) -> Processor:
    """A processor from its archspec features."""
    instructions = tuple(
        label
        for label, groups in INSTRUCTIONS.items()
        if any(group <= features for group in groups)
    )
    return Processor(name, machine.lower(), instructions)


@cache
def this_processor() -> Processor:
    """The processor of this machine, or the one that an emulator presents."""
    name = machine = platform.machine()
    features = frozenset(cpu.detect.detected_info().features)
    # Some systems do not allow running CPUID from memory that was just written.
    with suppress(OSError, MemoryError):
        name = cpu.brand_string() or machine
        if machine.lower() in X86:
            # Linux reports the features that it allows, but in an emulator those of the host;
            # CPUID reports those that the program sees.
            features &= cpu.detect.cpuid_info().features
    if machine.lower() not in X86:
        features |= cpu.host().features
    return processor_of(features, name=name, machine=machine)
