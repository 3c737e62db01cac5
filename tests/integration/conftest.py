"""Wait for real servers on a machine that may be busy."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

MAX_CPU_SECONDS = 300
"""A server that is not ready after this processor time will never be."""
MAX_IDLE_SECONDS = 120
"""A server that is not ready and used no processor time for this long hangs."""

WaitUntilReady = Callable[[subprocess.Popen[bytes], Callable[[], bool], Path], None]


@pytest.fixture(scope="session")
def wait_until_ready() -> WaitUntilReady:
    """``wait_until_ready(process, is_ready, log)`` waits as long as the server makes progress.

    The measure is the server's processor time. With wall-clock time, the test would fail on a
    machine where other processes use the processor.
    """

    def wait(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], log: Path) -> None:
        computed, last_progress = 0.0, time.monotonic()
        while process.poll() is None:
            if is_ready():
                return
            now = _cpu_seconds(process.pid)
            if now > computed:
                computed, last_progress = now, time.monotonic()
            if computed > MAX_CPU_SECONDS or time.monotonic() - last_progress > MAX_IDLE_SECONDS:
                break
            time.sleep(0.2)
        pytest.fail(
            f"the server is not ready: exit status {process.poll()}, {computed:.0f} s computed\n"
            + log.read_text(errors="replace")[-4000:]
        )

    return wait


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process and its children; 0 if they have ended."""
    try:
        server = psutil.Process(pid)
        times = [part.cpu_times() for part in (server, *server.children(recursive=True))]
    except psutil.Error:
        return 0.0
    return sum(part.user + part.system for part in times)
