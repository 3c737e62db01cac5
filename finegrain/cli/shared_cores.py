"""Chooses how the threads of PyTorch wait for each other, before PyTorch is loaded."""

from __future__ import annotations

import os

import psutil

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_SECONDS = 0.5
_BUSY_CORES = 0.5


def let_threads_sleep_on_shared_cores() -> str:
    """Let threads sleep while they wait for each other, if other processes use the cores.

    By default, a thread of OpenMP that has done its share of an operation runs on in an empty loop
    until the other threads are done. On idle cores this is the fastest way to wait. If another
    process uses a core, the threads take it from each other instead, and a training step may take
    several times as long as with threads that sleep. OpenMP reads ``OMP_WAIT_POLICY`` when it is
    loaded, so the choice is made once, from the processor time that other processes take now. A
    setting of the user is kept.

    Returns:
        What was chosen and why, for the user; empty if nothing was changed.
    """
    if any(name in os.environ for name in _SETTINGS):
        return ""
    cores = psutil.cpu_count() or 1
    busy = psutil.cpu_percent(interval=_SECONDS) / 100 * cores
    if busy < _BUSY_CORES:
        return ""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return (
        f"other processes use {busy:.1f} of {cores} cores, so idle threads sleep "
        "(OMP_WAIT_POLICY=PASSIVE)"
    )
