from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from finegrain import processor

CPU = torch.device("cpu")
NEWEST = {"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": True}


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


def has(monkeypatch, **capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize(
    ("capabilities", "computes", "name"),
    [
        (NEWEST, True, "AMX"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True}, True, "AVX-512 with bf16"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, False, "AVX-512"),
        ({"avx2": True, "avx512_f": False}, False, "AVX2"),
        ({"neon": True, "bf16": True}, True, "Arm with bf16"),
        ({"neon": True, "bf16": False}, False, "Arm"),
    ],
)
def test_bf16_is_taken_where_the_processor_has_it(capabilities, computes, name, monkeypatch):
    has(monkeypatch, **capabilities)
    assert processor.computes_bf16(CPU) is computes
    assert processor.matmul_dtype(CPU) is (torch.bfloat16 if computes else torch.float32)
    assert processor.instruction_set() == name


def test_an_unknown_processor_computes_in_fp32(monkeypatch):
    has(monkeypatch)
    assert not processor.computes_bf16(CPU)
    assert processor.instruction_set()
    assert processor.processor_name()


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("ATEN_CPU_CAPABILITY", "avx2", "AVX2"),
        ("ATEN_CPU_CAPABILITY", "AVX2", "AVX2"),
        ("ATEN_CPU_CAPABILITY", "default", "AVX2"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", "AVX-512"),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core_vnni", "AVX-512"),
        ("DNNL_MAX_CPU_ISA", "AVX512_CORE", "AVX-512"),
    ],
)
def test_an_emulated_older_processor_has_no_bf16(variable, value, name, monkeypatch):
    has(monkeypatch, **NEWEST)
    monkeypatch.setenv(variable, value)
    assert not processor.computes_bf16(CPU)
    assert processor.instruction_set() == name


@pytest.mark.parametrize("value", ["AVX512_CORE_BF16", "AVX512_CORE_AMX", "ALL", "DEFAULT"])
def test_a_limit_above_bf16_leaves_it(value, monkeypatch):
    has(monkeypatch, **NEWEST)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", value)
    assert processor.computes_bf16(CPU)


def test_a_gpu_is_asked_itself(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert processor.computes_bf16(torch.device("cuda"))


def test_it_is_imported_without_torch():
    code = "import sys, finegrain.processor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
