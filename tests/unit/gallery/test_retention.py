"""Times of pictures, and automatic expiry."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite.connections import Connections
from finegrain.times import utc_text

DIM = 4
START = datetime(2026, 5, 1, 8, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("finegrain.times.now", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "g"


@pytest.fixture
def gallery(path: Path, clock: Clock):
    with Gallery(path, dim=DIM) as opened:
        yield opened


def add(gallery: Gallery, count: int = 1, **options) -> list[int]:
    return gallery.add(np.tile(np.eye(1, DIM), (count, 1)), [None] * count, **options)


def result(gallery: Gallery, where: str | None = None) -> list[int]:
    return [hit.id for hit in gallery.search(np.eye(1, DIM), 100, where)[0]]


# --- times and tracks -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-05-01T08:00", "2026-05-01T08:00:00.000Z"),
        ("2026-05-01T08:00:00.1239+02:00", "2026-05-01T06:00:00.123Z"),
        (datetime(2026, 5, 1), "2026-05-01T00:00:00.000Z"),
        (datetime(2026, 5, 1, tzinfo=timezone(timedelta(hours=-3))), "2026-05-01T03:00:00.000Z"),
        (datetime(1, 1, 1), "0001-01-01T00:00:00.000Z"),
        (None, None),
    ],
)
def test_times_are_kept_in_utc(gallery: Gallery, given, kept: str | None):
    (id_,) = add(gallery, times=[given], tracks=["gate-3/7"])
    row = gallery.rows([id_])[0]
    assert (row.time, row.track) == (kept, "gate-3/7")
    assert row.added_at == "2026-05-01T08:00:00.000Z"


@given(st.lists(st.datetimes(timezones=st.timezones()), min_size=2, max_size=2))
def test_times_are_ordered_as_texts(moments: list[datetime]):
    try:
        first, second = map(utc_text, moments)
    except ValueError:
        return
    one, other = (m.astimezone(UTC) for m in moments)
    if abs(one - other) >= timedelta(milliseconds=1):
        assert (first < second) == (one < other)
    assert utc_text(first) == first


def test_times_are_filtered(gallery: Gallery):
    add(gallery, 3, times=["2026-05-01T07:59:59.999", "2026-05-01T08:00", None])
    assert result(gallery, "time >= '2026-05-01T08:00'") == [2]
    assert result(gallery, "time < '2026-05-01T10:00+02:00'") == [1]
    assert result(gallery, "time is null") == [3]
    assert result(gallery, "added_at <= '2026-05-01T08:00' and track is null") == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": ["noon"]}, r"times\[0\] is a datetime, a time of ISO 8601.*got 'noon'"),
        ({"times": [7]}, "got 7"),
        ({"times": ["0001-01-01T00:00+05:00"]}, r"times\[0\]"),
        ({"times": [None, None]}, "one entry per vector"),
        ({"times": "2026"}, "got str"),
        ({"tracks": [[7]]}, r"tracks\[0\] is text"),
        ({"metadata": [{"track": "7"}]}, "'track' is a column of every gallery"),
        ({"expire_after": 0}, "more than zero"),
        ({"expire_after": -DAY}, "more than zero"),
        ({"expire_after": "30 days"}, "got '30 days'"),
        ({"expire_after": True}, "got True"),
        ({"expire_after": float("nan")}, "got nan"),
        ({"expire_after": 1e30}, "more than zero"),
        ({"expire_after": timedelta.max}, "past the year 9999"),
    ],
)
def test_invalid_times_are_refused_and_nothing_is_written(gallery, change, message: str):
    with pytest.raises(GalleryError, match=message):
        add(gallery, **change)
    assert len(gallery) == 0


# --- retention --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_an_invalid_retention_is_refused(gallery: Gallery, count: int):
    with pytest.raises(GalleryError, match="expire_after is a timedelta or a number of seconds"):
        add(gallery, count, expire_after=0)


@pytest.mark.parametrize("after", [DAY, 86_400, 86_400.0])
def test_retention_counts_from_when_a_picture_was_taken_or_added(gallery: Gallery, after):
    add(gallery, 3, times=[START - DAY / 2, START + DAY, None], expire_after=after)
    assert [row.expires_at for row in gallery.rows([1, 2, 3])] == [
        "2026-05-01T20:00:00.000Z",
        "2026-05-03T08:00:00.000Z",
        "2026-05-02T08:00:00.000Z",
    ]
    assert result(gallery, "expires_at < '2026-05-02T08:00:01'") == [1, 3]


def test_expired_pictures_are_in_no_result(gallery: Gallery, clock: Clock, path: Path):
    jpeg = b"\xff\xd8\xff"
    add(gallery, 2, pids=[1, 2], expire_after=DAY, thumbnails=[jpeg, jpeg])
    add(gallery, 1, pids=[3])
    with Gallery(path) as other:
        for opened in (gallery, other):
            assert result(opened) == [1, 2, 3]
        clock.time += DAY - timedelta(milliseconds=1)
        assert result(gallery) == [1, 2, 3]
        clock.time += timedelta(milliseconds=1)
        for opened in (gallery, other):
            assert (len(opened), list(opened)) == (1, [3])
            assert [row.id for row in opened.rows([1, 2, 3])] == [3]
            assert (1 in opened, 3 in opened) == (False, True)
            assert opened.thumbnail(1) is None
            assert result(opened) == result(opened, "pid < 9") == [3]
            assert opened.search(np.eye(1, DIM), 9, group_by="pid")[0][0].id == 3
            assert opened.delete([1]) == 0


def test_pictures_that_have_expired_are_not_added(gallery: Gallery):
    assert result(gallery) == []
    add(gallery, 2, times=[START - 2 * DAY, START], expire_after=DAY)
    assert result(gallery) == list(gallery) == [2]


def stored(path: Path) -> int:
    """Number of rows in the file, including expired ones."""
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM picture")
    connection.close()
    return int(count[0])


def test_expire_deletes_and_counts(gallery: Gallery, clock: Clock, path: Path):
    add(gallery, 5, expire_after=DAY)
    add(gallery, 2)
    assert gallery.expire() == 0
    clock.time += DAY
    assert stored(path) == 7
    assert gallery.expire() == 5
    assert stored(path) == 2
    assert gallery.expire() == 0


def test_opening_deletes_expired_pictures(gallery: Gallery, clock: Clock, path: Path):
    add(gallery, 3, expire_after=DAY)
    add(gallery, 1)
    clock.time += DAY
    Gallery(path).close()
    assert stored(path) == 1
    assert result(gallery) == [4]


def test_searches_delete_expired_pictures_at_intervals(
    gallery: Gallery, clock: Clock, path: Path, monkeypatch
):
    add(gallery, 1, expire_after=DAY)
    add(gallery, 1, expire_after=2 * DAY)
    add(gallery, 1)
    clock.time += DAY
    result(gallery)
    assert stored(path) == 2
    clock.time += DAY
    assert result(gallery) == [3]
    assert stored(path) == 2  # not yet, as the last deletion was less than a minute ago
    monkeypatch.setattr("finegrain.gallery.sqlite.followed_store.TIDY_SECONDS", 0)
    assert result(gallery) == [3]
    assert stored(path) == 1


def test_a_search_does_not_wait_for_a_writer_to_delete(gallery, clock: Clock, path: Path):
    add(gallery, 2, expire_after=DAY)
    clock.time += DAY
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert result(gallery) == []
    with Gallery(path) as opened:
        assert len(opened) == 0
    assert stored(path) == 2
    other.execute("ROLLBACK")
    other.close()
    assert gallery.expire() == 2


def test_expired_pictures_leave_no_bytes(path: Path, clock: Clock):
    secrets = np.random.default_rng(0).standard_normal((300, DIM)).astype(np.float32)
    secrets /= np.linalg.norm(secrets, axis=1, keepdims=True)
    with Gallery(path, dim=DIM) as gallery:
        names = [f"secret-{number}" for number in range(300)]
        gallery.add(secrets, names, tracks=names, expire_after=DAY)
        clock.time += DAY
        assert gallery.expire() == 300
        data = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"secret-" not in data
    assert not any(vector.tobytes() in data for vector in secrets)


def test_an_interrupted_erasure_is_completed_at_the_next_opening(path: Path, monkeypatch):
    with Gallery(path, dim=DIM) as gallery:
        add(gallery, 2, cameras=["secret", None])

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("finegrain.gallery.sqlite.connections.overwrite_unused", killed)
            with pytest.raises(KeyboardInterrupt):
                gallery.delete([1])
        assert result(gallery) == [2]

    def noted() -> tuple[int, int]:
        """Number of deletions, and how many of these were erased."""
        connection = sqlite3.connect(path)
        (row,) = connection.execute("SELECT deletions, scrubbed FROM gallery")
        connection.close()
        return row

    assert noted() == (1, 0)
    Gallery(path).close()
    assert noted() == (1, 1)


def test_a_deletion_during_an_erasure_is_erased(gallery: Gallery, path: Path, monkeypatch):
    add(gallery, 3, cameras=["one", "two", None])
    original = Connections.truncate_log
    with Gallery(path) as other:

        def overtaken(connections: Connections, seconds: float) -> bool:
            emptied = original(connections, seconds)
            if list(other) == [2, 3]:
                other.delete([2])
            return emptied

        monkeypatch.setattr(Connections, "truncate_log", overtaken)
        gallery.delete([1])
        assert list(gallery) == [3]
        data = b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert (b"one" in data, b"two" in data) == (False, False)
