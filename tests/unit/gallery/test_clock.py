"""When a gallery trusts the clock of its machine, in weeks of simulated use."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.errors import GalleryWarning
from finegrain.gallery import Gallery
from finegrain.gallery.clock import LONGEST_STEP, LONGEST_USUAL_STEP, LOOKS_APART, Looks
from finegrain.gallery.sqlite.store import Store
from finegrain.times import utc_text

START = datetime(2026, 5, 1, 8, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


class Machine:
    """A machine with a simulated clock, on which commands open one gallery after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = START

    def add(self, count: int = 1, **options) -> None:
        with Gallery(self.path, dim=2) as gallery:
            self.time += SECOND
            gallery.add(np.tile(np.float32([1, 0]), (count, 1)), [None] * count, **options)

    def expire(self) -> int | None:
        """Number of deleted pictures, or None if the clock was doubted."""
        with Gallery(self.path) as gallery, warnings.catch_warnings():
            self.time += SECOND
            warnings.simplefilter("error", GalleryWarning)
            try:
                return gallery.expire()
            except GalleryWarning:
                return None

    def num_stored(self) -> int:
        with Gallery(self.path) as gallery, gallery._store.reading() as run:  # type: ignore
            return int(run("SELECT count(*) FROM picture").fetchone()[0])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(tmp_path / "g")
    monkeypatch.setattr("finegrain.times.now", lambda: machine.time)
    return machine


@pytest.mark.parametrize("days", [3, 7, 14, 30])
def test_a_regular_run_is_doubted_once(machine: Machine, days: int):
    machine.add(expire_after=10_000 * DAY)
    doubted = []
    for run in range(12):
        machine.time += days * DAY + (-1) ** run * timedelta(hours=3)
        doubted.append(machine.expire() is None)
    assert doubted == [True] + [False] * 11


def test_a_weekly_run_with_daily_use_is_never_doubted(machine: Machine):
    machine.add(expire_after=10_000 * DAY)
    for day in range(1, 60):
        machine.time += DAY
        if day % 7 == 0:
            assert machine.expire() == 0
        elif day % 2:
            machine.add()
        else:
            Gallery(machine.path).close()


def test_openings_between_keep_the_weekly_step(machine: Machine):
    machine.add(expire_after=10_000 * DAY)
    machine.time += 7 * DAY
    assert machine.expire() is None
    for _ in range(6):
        machine.time += 7 * DAY
        assert machine.expire() == 0
        machine.time += DAY / 2
        Gallery(machine.path).close()
        machine.time -= DAY / 2


@pytest.mark.parametrize("is_weekly", [False, True])
def test_one_jump_deletes_nothing(machine: Machine, is_weekly: bool):
    machine.add(3, expire_after=60 * DAY)
    if is_weekly:
        for _ in range(4):
            machine.time += 7 * DAY
            machine.expire()
    right = machine.time
    machine.time += 3650 * DAY
    assert machine.expire() is None
    machine.time += timedelta(minutes=50)
    assert machine.expire() is None
    assert machine.num_stored() == 3
    machine.time = right + DAY
    assert machine.expire() == 0
    assert machine.num_stored() == 3


@pytest.mark.parametrize("days", [5, 400, 3650])
def test_a_clock_that_was_set_back_is_doubted_at_the_next_jump(machine: Machine, days: int):
    right = machine.time
    machine.time += days * DAY  # ahead when the gallery is made, and again an hour later
    machine.add()
    machine.time += LOOKS_APART
    machine.expire()
    machine.time = right + DAY
    machine.add(3, expire_after=3 * DAY)
    for _ in range(2):
        machine.time = right + days * DAY
        assert machine.expire() is None
        machine.time = right + 2 * DAY
        assert machine.expire() == 0
    assert machine.num_stored() == 4


def test_a_jump_that_lasts_is_trusted_at_a_second_look(machine: Machine):
    machine.add(3, expire_after=60 * DAY)
    machine.time += 100 * DAY
    assert machine.expire() is None
    machine.time += LOOKS_APART
    Gallery(machine.path).close()
    assert machine.num_stored() == 0
    machine.time += 100 * DAY  # such a step is still unusual
    assert machine.expire() is None


def test_an_opening_within_the_hour_does_not_write(machine: Machine):
    machine.add()
    before = machine.path.stat().st_mtime_ns
    machine.time += timedelta(minutes=30)
    Gallery(machine.path).close()
    assert machine.path.stat().st_mtime_ns == before


def test_a_gallery_that_stays_open_looks_again(machine: Machine, monkeypatch):
    for name in ("TIDY_SECONDS", "NOTE_SECONDS"):
        monkeypatch.setattr(f"finegrain.gallery.sqlite.followed_store.{name}", 0)
    monkeypatch.setattr(Store, "tidy_soon", Store.tidy)
    machine.add(expire_after=3 * DAY)
    with Gallery(machine.path) as gallery:
        assert len(gallery.search([[1, 0]], 1)[0]) == 1
        machine.time += 5 * DAY  # the machine slept
        for minutes, num_stored in ((0, 1), (30, 1), (30, 0)):
            machine.time += timedelta(minutes=minutes)
            assert gallery.search([[1, 0]], 1) == [[]]
            with gallery._store.reading() as run:  # type: ignore[union-attr]
                assert run("SELECT count(*) FROM picture").fetchone() == (num_stored,)


@given(st.lists(st.timedeltas(-400 * DAY, 400 * DAY), max_size=30))
def test_a_single_look_is_never_trusted_far_ahead_of_the_look_before(steps):
    looks = Looks(START)
    now = START
    for step in steps:
        before, looks = looks, looks.after(now + step)
        assert before.clock is not None
        assert before.clock <= now
        if step > 1.25 * LONGEST_USUAL_STEP and before.doubted is None:
            assert looks.clock == before.clock
        now += step
        assert looks.deletable_until(now) <= utc_text(now)


@given(st.lists(st.tuples(st.timedeltas(timedelta(0), 60 * DAY), st.booleans()), max_size=30))
def test_the_trusted_time_never_jumps_without_a_second_look(steps):
    looks = Looks(START)
    now = START
    readings = [START]
    for step, trust in steps:
        now += step
        before, looks = looks, looks.after(now, trust=trust)
        assert Looks.of_texts(*looks.texts()).texts() == looks.texts()
        assert looks.clock is not None
        assert before.clock is not None
        if not trust and looks.clock > before.clock + 1.25 * LONGEST_USUAL_STEP:
            assert any(before.clock < r <= now - LOOKS_APART for r in readings)
        if looks.usual_step is not None:
            assert LONGEST_STEP < looks.usual_step <= LONGEST_USUAL_STEP
        readings.append(now)
