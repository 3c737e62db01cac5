"""Freed memory stays in the process until training ends."""

import platform
import subprocess
import sys
from textwrap import dedent

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc has these settings"
)

PAGE_FAULTS = """
    import resource
    from contextlib import nullcontext
    import torch
    from finegrain.training.memory import kept_memory

    def faults_of_ten(context):
        with context:
            for _ in range(3):
                torch.zeros(6, 1 << 20)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(10):
                # Together they are larger than what glibc keeps by itself.
                tensors = [torch.zeros(6, 1 << 20) for _ in range(6)]
                del tensors
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    print(faults_of_ten(nullcontext()), faults_of_ten(kept_memory()), faults_of_ten(nullcontext()))
"""


@pytest.mark.slow
def test_tensors_are_allocated_in_memory_that_was_freed_before(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    code = dedent(PAGE_FAULTS)
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    before, during, after = map(int, output.split())
    assert during < before / 5
    assert after > 2 * during


@pytest.mark.slow
def test_settings_of_the_user_are_kept(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    code = dedent(PAGE_FAULTS)
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    before, during, _ = map(int, output.split())
    assert during > before / 2
