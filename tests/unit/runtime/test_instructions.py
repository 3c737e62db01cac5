from __future__ import annotations

import platform

import pytest

from finegrain.runtime.byte_products import products_saturate
from finegrain.runtime.instructions import INSTRUCTIONS, X86, processor_of, this_processor

AVX2 = {"avx2", "fma"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("machine", "features", "instructions", "missing"),
    [
        ("x86_64", set(), (), ("AVX2", "AVX-512", "VNNI", "AMX", "bf16")),
        ("AMD64", AVX2, ("AVX2",), ("AVX-512", "VNNI", "AMX", "bf16")),
        ("x86_64", AVX2 | {"avx_vnni"}, ("AVX2", "VNNI"), ("AVX-512", "AMX", "bf16")),
        ("x86_64", AVX512, ("AVX2", "AVX-512"), ("VNNI", "AMX", "bf16")),
        ("x86_64", AVX512 - {"avx512bw"}, ("AVX2",), ("AVX-512", "VNNI", "AMX", "bf16")),
        (
            "x86_64",
            AVX512 | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8"},
            ("AVX2", "AVX-512", "VNNI", "AMX", "bf16"),
            (),
        ),
        ("aarch64", {"asimd"}, ("NEON",), ("dotprod", "i8mm", "bf16")),
        ("arm64", {"asimd", "asimddp", "i8mm", "bf16"}, ("NEON", "dotprod", "i8mm", "bf16"), ()),
    ],
)
def test_instruction_sets_have_their_usual_names(machine, features, instructions, missing):
    processor = processor_of(frozenset(features), name="some", machine=machine)
    assert processor.instructions == instructions
    assert processor.missing == missing


def test_the_detected_instructions_agree_with_measured_products():
    """Compares the detected instructions with the behaviour of ONNX Runtime's kernels."""
    processor = this_processor()
    assert processor.machine == platform.machine().lower()
    assert set(processor.instructions) <= set(INSTRUCTIONS)
    if processor.machine not in X86 or "VNNI" in processor.instructions:
        assert not products_saturate()
    elif "AVX2" in processor.instructions:
        assert products_saturate()
