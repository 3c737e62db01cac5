"""Watching under a kill, and for six simulated hours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from finegrain.cameras.address import Address
from finegrain.cameras.analysis import Analysis
from finegrain.cameras.boxes import Box
from finegrain.cameras.camera import Camera
from finegrain.cameras.counters import Counters
from finegrain.cameras.stream import Frame
from finegrain.gallery import Gallery
from finegrain.search.searcher import Searcher
from finegrain.synthetic.film_writer import write_film

pytestmark = pytest.mark.slow

SIZE = (120, 160)
START = "2026-05-01T08:00"
CHILD = """
import sys, time
from test_watch_for_long import START, detect
from finegrain.search.searcher import Searcher

def slowly(pixels):
    time.sleep(0.02)
    return detect(pixels)

with Searcher(sys.argv[1], threads=1) as searcher:
    searcher.watch(sys.argv[2], detector=slowly, start=START)
"""


def picture(number: int, period: int = 40) -> np.ndarray:
    """A red person who walks through every ``period`` frames, and is away half of the time."""
    pixels = np.random.default_rng(0).integers(90, 110, (*SIZE, 3)).astype(np.uint8)
    column = 2 * SIZE[1] * (number % period) // period - 24
    if -20 < column < SIZE[1]:
        x0, x1 = max(0, column), min(SIZE[1], column + 24)
        pixels[30:100, x0:x1] = (220, 30, 30)
        pixels[30:100:6, x0:x1] = 20
    return pixels


def detect(pixels: np.ndarray) -> list[Box]:
    hits = pixels[..., 0].astype(int) - pixels[..., 2] > 90
    if hits.sum() < 200:
        return []
    rows, columns = np.flatnonzero(hits.any(1)), np.flatnonzero(hits.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [Box(x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y, score=0.9)]


def stored(gallery: Gallery) -> list[tuple[object, ...]]:
    rows = [(r.track, r.time, r.image, r.metadata["vector"]) for r in gallery.rows(gallery)]
    return sorted(rows, key=str)


def test_a_killed_watch_keeps_ended_tracks_and_continues(plan: Path, tmp_path: Path):
    film = tmp_path / "gate.mp4"
    write_film(film, (picture(number) for number in range(240)), 5)
    with Searcher(plan, gallery=tmp_path / "whole", threads=1) as searcher:
        searcher.watch(film, detector=detect, start=START)
        whole = stored(searcher.gallery)
    assert len({track for track, *_ in whole}) == 6

    gallery = plan.with_suffix(".gallery")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]),
    }
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(plan), str(film)], env=environment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        if gallery.exists():
            with Gallery(gallery, create=False) as opened:
                if len(opened):
                    break
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with Gallery(gallery, create=False) as opened:
        kept = stored(opened)
    assert 0 < len(kept) < len(whole)
    assert set(kept) <= set(whole)
    with Searcher(plan, threads=1) as searcher:
        searcher.watch(film, detector=detect, start=START)
        assert stored(searcher.gallery) == whole


def test_six_hours_take_no_more_memory_than_one():
    psutil = pytest.importorskip("psutil")
    analysis = Analysis(
        Camera(name="gate", address=Address.of("gate.mp4")),
        detect,
        Counters(),
        every=1.0,
        best=4,
        tell=lambda message: None,
    )
    # A walk takes twenty seconds, and others stand in the picture for a quarter of an hour.
    pictures = [picture(number) for number in range(40)]
    begin, process = datetime(2026, 5, 1, tzinfo=UTC), psutil.Process()
    tracks, memory = set(), []
    for second in count():
        hour, minute = divmod(second, 3600)
        standing = minute < 900
        frame = Frame(
            time=begin + timedelta(seconds=second),
            seconds=float(second),
            clock="stream",
            pixels=pictures[10 if standing else second % 40],
        )
        for sighting in analysis.sightings(frame):
            tracks.add(sighting.track)
        if minute == 3599:
            memory.append(process.memory_info().rss)
            if hour == 5:
                break
    assert len(tracks) > 6 * 60
    assert max(memory) - memory[0] < 16 << 20
