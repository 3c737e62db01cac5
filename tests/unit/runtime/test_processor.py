from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from finegrain.runtime import processor
from finegrain.runtime.instructions import INSTRUCTIONS, Processor
from finegrain.runtime.processor import LIMITS, computes_bf16, matmul_dtype, usable_instructions

CPU = torch.device("cpu")
NEWEST = ("AVX2", "AVX-512", "VNNI", "AMX", "bf16")


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    for variable in LIMITS:
        monkeypatch.delenv(variable, raising=False)


def has(monkeypatch, *instructions):
    own = Processor("of a test", "x86_64", instructions)
    monkeypatch.setattr(processor, "this_processor", lambda: own)


@pytest.mark.parametrize(
    ("instructions", "computes"),
    [
        (NEWEST, True),
        (("NEON", "dotprod", "bf16"), True),
        (("AVX2", "AVX-512", "VNNI"), False),
        (("AVX2",), False),
        (("NEON",), False),
        ((), False),
    ],
)
def test_bf16_is_used_if_the_processor_supports_it(instructions, computes, monkeypatch):
    has(monkeypatch, *instructions)
    assert computes_bf16(CPU) is computes
    assert matmul_dtype(CPU) is (torch.bfloat16 if computes else torch.float32)
    assert usable_instructions() == instructions


@pytest.mark.parametrize(
    ("variable", "value", "left"),
    [
        ("ATEN_CPU_CAPABILITY", "avx2", ("AVX2",)),
        ("ATEN_CPU_CAPABILITY", "AVX2", ("AVX2",)),
        ("ATEN_CPU_CAPABILITY", "default", ()),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", ("AVX2",)),
        ("ONEDNN_MAX_CPU_ISA", "AVX2_VNNI", ("AVX2", "VNNI")),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core_vnni", ("AVX2", "AVX-512", "VNNI")),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", ("AVX2", "AVX-512", "VNNI", "bf16")),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", NEWEST),
        ("ONEDNN_MAX_CPU_ISA", "ALL", NEWEST),
        ("ATEN_CPU_CAPABILITY", "avx512", NEWEST),
    ],
)
def test_an_emulated_older_processor_has_fewer_instructions(variable, value, left, monkeypatch):
    has(monkeypatch, *NEWEST)
    monkeypatch.setenv(variable, value)
    assert usable_instructions() == left
    assert computes_bf16(CPU) is ("bf16" in left)


def test_limits_name_instructions_that_are_known():
    named = {name for values in LIMITS.values() for names in values.values() for name in names}
    assert named <= set(INSTRUCTIONS)


def test_a_gpu_is_queried_directly(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert computes_bf16(torch.device("cuda"))


def test_it_is_imported_without_torch():
    code = "import sys, finegrain.runtime.processor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
