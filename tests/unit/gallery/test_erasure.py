"""No byte of deleted or expired pictures remains in any file."""

from __future__ import annotations

import sqlite3
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import GalleryWarning
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite.connections import Connections
from finegrain.gallery.sqlite.tokens import TokenFile
from finegrain.gallery.sqlite.unused_bytes import overwrite_unused
from finegrain.records import PictureTokens

DIM = 8
JPEG = b"\xff\xd8\xff"
PATIENCE = 20.0


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype("<f4")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def secrets(number: int) -> dict:
    """Columns of one picture, each of which contains its number."""
    name = f"secret-{number:06}"
    return {
        "images": [f"image-{name}"],
        "cameras": [f"camera-{name}"],
        "tracks": [f"track-{name}"],
        "metadata": [{"caption": f"caption-{name}"}],
        "thumbnails": [JPEG + name.encode() * 3000],  # on separate pages
    }


def add_secret(gallery: Gallery, number: int, **options) -> int:
    (id_,) = gallery.add(unit(1, number), **secrets(number), **options)
    return id_


def stored(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())


def is_stored(folder: Path, number: int) -> bool:
    data = stored(folder)
    return f"secret-{number:06}".encode() in data or unit(1, number).tobytes() in data


def within(seconds: float, fact: Callable[[], bool]) -> bool:
    """Whether a condition becomes true within a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if fact():
            return True
        time.sleep(0.02)
    return fact()


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as opened:
        yield opened


# --- unused bytes -----------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    page_size=st.sampled_from([512, 1024, 4096, 65536]),
    longest=st.sampled_from([20, 300, 3000]),
)
def test_overwriting_unused_bytes_does_not_change_the_database(
    tmp_path_factory: pytest.TempPathFactory, seed: int, page_size: int, longest: int
):
    path = tmp_path_factory.mktemp("unused") / "db"
    random = np.random.default_rng(seed)
    connection = sqlite3.connect(path, isolation_level=None)
    for setting in (f"page_size = {page_size}", "secure_delete = ON", "synchronous = OFF"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
    connection.execute("CREATE INDEX t_name ON t (name)")
    connection.execute("CREATE TABLE w (name TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID")
    for _ in range(12):
        for _ in range(40):
            name = f"name-{random.integers(10**9):09}-" + "x" * int(random.integers(longest))
            data = random.bytes(int(random.integers(longest)))
            connection.execute("INSERT INTO t (name, data) VALUES (?, ?)", (name, data))
            connection.execute("INSERT OR IGNORE INTO w VALUES (?, 1)", (name,))
        connection.execute("DELETE FROM t WHERE id % 3 = ?", (int(random.integers(3)),))
        connection.execute("DELETE FROM w WHERE name NOT IN (SELECT name FROM t)")
    tables = {name: list(connection.execute(f"SELECT * FROM {name}")) for name in "tw"}
    (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    with path.open("r+b", buffering=0) as file:
        overwrite_unused(file, page_size, num_pages)
        assert overwrite_unused(file, page_size, num_pages) == 0
    connection = sqlite3.connect(path)
    assert list(connection.execute("PRAGMA integrity_check")) == [("ok",)]
    assert {n: list(connection.execute(f"SELECT * FROM {n}")) for n in "tw"} == tables
    connection.close()
    data = path.read_bytes()
    live = {name.split("-")[1] for _, name, _ in tables["t"]}
    begun = [part[:9] for part in data.split(b"name-")[1:]]
    assert {name.decode() for name in begun if name.isdigit() and len(name) == 9} <= live


def test_a_file_with_unknown_pages_is_not_changed(tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("PRAGMA auto_vacuum = FULL")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with (
        (tmp_path / "db").open("r+b", buffering=0) as file,
        pytest.raises(ValueError, match="cannot be told apart"),
    ):
        overwrite_unused(file, 4096, 2)
    (tmp_path / "short").write_bytes(b"\0" * 600)
    with (
        (tmp_path / "short").open("r+b", buffering=0) as short,
        pytest.raises(OSError, match="ends"),
    ):
        overwrite_unused(short, 512, 2)


# --- deletion ---------------------------------------------------------------------------


def test_deletions_in_any_order_leave_no_old_bytes(gallery: Gallery, tmp_path: Path):
    random = np.random.default_rng(1)
    alive: dict[int, int] = {}  # numbers by id
    for round_ in range(12):
        for number in random.permutation(np.arange(round_ * 30, round_ * 30 + 30)).tolist():
            alive[add_secret(gallery, number)] = number
        gone = random.choice(list(alive), len(alive) // 3, replace=False).tolist()
        gallery.delete(gone)
        for id_ in gone:
            del alive[id_]
        data = stored(tmp_path)
        there = {int(part[:6]) for part in data.split(b"secret-")[1:]}
        assert there == set(alive.values())
        dead = set(range(round_ * 30 + 30)) - there
        assert not any(unit(1, number).tobytes() in data for number in dead)
    assert set(gallery) == set(alive)


def test_another_handle_does_not_write_old_bytes_back(gallery: Gallery, tmp_path: Path):
    """Its cached pages may have bytes that the first handle has overwritten in the file."""
    ids = [add_secret(gallery, number) for number in range(60)]
    with Gallery(tmp_path / "g") as other:
        other.rows(ids)
        add_secret(other, 100)
        gallery.delete(ids[::2])
        for number in range(101, 120):
            add_secret(other, number)
        for number in range(0, 60, 2):
            assert not is_stored(tmp_path, number)


def test_nothing_is_written_to_the_folder_for_temporary_files(
    gallery: Gallery, tmp_path_factory: pytest.TempPathFactory, monkeypatch
):
    nowhere = tmp_path_factory.mktemp("temporary") / "missing"
    for name in ("SQLITE_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(name, str(nowhere))
    ids = gallery.add(unit(500), [None] * 500, tracks=[f"{i:0200}" for i in range(500)])
    with gallery._store.reading() as run:  # type: ignore[union-attr]
        assert run("PRAGMA temp_store").fetchone() == (2,)
    assert gallery.delete(ids[:400]) == 400


def test_a_deletion_waits_for_readers_and_is_then_erased(
    gallery: Gallery, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("finegrain.gallery.sqlite.store.ERASE_SECONDS", 0.05)
    id_ = add_secret(gallery, 1)
    reader = sqlite3.connect(tmp_path / "g", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM picture").fetchall()
    with pytest.warns(GalleryWarning, match="bytes stay in g-wal while another process"):
        assert gallery.delete([id_]) == 1
    assert list(gallery) == []
    assert is_stored(tmp_path, 1)
    assert not gallery._store.erased()  # type: ignore[union-attr]
    reader.execute("COMMIT")
    reader.close()
    assert within(PATIENCE, lambda: not is_stored(tmp_path, 1))
    assert within(PATIENCE, gallery._store.erased)  # type: ignore[union-attr]


def test_waiting_for_a_short_read_gives_no_warning(gallery: Gallery, tmp_path: Path):
    id_ = add_secret(gallery, 1)
    reader = sqlite3.connect(tmp_path / "g", isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM picture").fetchall()
    Timer(0.1, lambda: reader.execute("COMMIT")).start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gallery.delete([id_])
    assert not is_stored(tmp_path, 1)
    reader.close()


# --- the cost of a deletion -------------------------------------------------------------


def num_unclean(path: Path) -> int:
    """Number of pages of a file with content in their unused bytes, which are then overwritten."""
    connection = sqlite3.connect(path)
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    connection.close()
    with copy.open("r+b", buffering=0) as file:
        return overwrite_unused(file, page_size, num_pages)


def fill(gallery: Gallery, first: int, count: int) -> list[int]:
    """Add pictures whose names are in random order, so that SQLite moves rows between pages."""
    random = np.random.default_rng(first)
    columns = [secrets(number) for number in random.integers(10**6, size=count).tolist()]
    joined = {name: [one[name][0] for one in columns] for name in columns[0]}
    return gallery.add(unit(count, first), **joined)


@pytest.fixture
def overwritten(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Number of pages of each call that overwrites unused bytes; None for all pages."""
    calls: list[int | None] = []

    def counting(file, page_size: int, num_pages: int, pages=None) -> int:
        calls.append(None if pages is None else len(pages))
        return overwrite_unused(file, page_size, num_pages, pages)

    monkeypatch.setattr("finegrain.gallery.sqlite.connections.overwrite_unused", counting)
    return calls


def test_a_deletion_overwrites_only_pages_that_it_touched(gallery: Gallery, overwritten):
    ids = fill(gallery, 0, 1000)
    overwritten.clear()
    gallery.delete(ids[700:701])
    assert None not in overwritten
    assert sum(filter(None, overwritten)) < 60
    assert gallery._store.erased()  # type: ignore[union-attr]


def test_every_write_leaves_pages_without_old_content(gallery: Gallery, tmp_path: Path):
    random = np.random.default_rng(3)
    with Gallery(tmp_path / "g") as other:
        for round_ in range(10):
            one = (gallery, other)[round_ % 2]
            ids = fill(one, round_ * 100, int(random.integers(1, 60)))
            assert num_unclean(tmp_path / "g") == 0
            one.update(ids[:5], {"caption": "longer " * int(random.integers(300))})
            assert num_unclean(tmp_path / "g") == 0
            one.delete(random.choice(ids, len(ids) // 3, replace=False).tolist())
            assert num_unclean(tmp_path / "g") == 0
    gallery.close()
    assert num_unclean(tmp_path / "g") == 0


@pytest.mark.parametrize("by", ["the next writer", "closing"])
def test_pages_of_an_interrupted_write_are_cleaned_later(
    gallery: Gallery, tmp_path: Path, monkeypatch, by: str
):
    fill(gallery, 0, 200)
    unclean = 0

    def killed(*arguments) -> int:
        if len(gallery) == before:
            return overwrite_unused(*arguments)
        raise KeyboardInterrupt  # once the rows are written

    for first in range(10):
        before = len(gallery)
        with monkeypatch.context() as patch:
            patch.setattr("finegrain.gallery.sqlite.connections.overwrite_unused", killed)
            with pytest.raises(KeyboardInterrupt):
                fill(gallery, first, 60)
        unclean += num_unclean(tmp_path / "g")
        if by == "closing":
            gallery.close()
            gallery = Gallery(tmp_path / "g")
        else:
            with Gallery(tmp_path / "g") as other:
                other.update([1], {"caption": "x"})
        assert num_unclean(tmp_path / "g") == 0
    assert unclean
    gallery.close()


def test_pages_that_a_reader_held_back_are_cleaned_later(gallery: Gallery, tmp_path: Path):
    fill(gallery, 0, 200)
    reader = sqlite3.connect(tmp_path / "g", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM picture").fetchall()
    for first in range(1000, 1400, 50):
        gallery.delete(fill(gallery, first, 50)[:0])
    reader.execute("COMMIT")
    gallery.update([1], {"caption": "x"})
    assert num_unclean(tmp_path / "g") == 0
    reader.close()


def test_a_write_between_two_steps_of_a_deletion_has_all_pages_overwritten(
    gallery: Gallery, tmp_path: Path, monkeypatch, overwritten
):
    """The log that named its pages may have been emptied."""
    ids = fill(gallery, 0, 300)
    original = Connections.truncate_log
    with Gallery(tmp_path / "g") as other:

        def late(connections: Connections, seconds: float):
            truncated = original(connections, seconds)
            fill(other, 5000, 40)
            return truncated

        overwritten.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Connections, "truncate_log", late)
            gallery.delete(ids[:3])
        assert None in overwritten
        assert num_unclean(tmp_path / "g") == 0
        overwritten.clear()
        gallery.delete(ids[3:6])
        assert None not in overwritten


def test_a_plain_copy_of_a_gallery_in_use_is_overwritten_in_full(
    gallery: Gallery, tmp_path: Path, overwritten
):
    fill(gallery, 0, 30)
    for name in ("", ".vectors"):
        (tmp_path / f"copied{name}").write_bytes((tmp_path / f"g{name}").read_bytes())
    overwritten.clear()
    with pytest.warns(GalleryWarning, match="copied while it was in use"):
        Gallery(tmp_path / "copied").close()
    assert None in overwritten
    overwritten.clear()
    Gallery(tmp_path / "copied").close()
    assert None not in overwritten


# --- expiry -----------------------------------------------------------------------------


def test_expired_pictures_leave_the_log_of_a_running_process(gallery: Gallery, tmp_path: Path):
    add_secret(gallery, 1, expire_after=0.3)
    add_secret(gallery, 2)
    tokens = PictureTokens(codes=np.full((2, 2, 4), 77, np.int8), scales=np.ones((2, 2), "f4"))
    with TokenFile(tmp_path / "g.tokens", fingerprint="a", tokens=2, width=4) as file:
        file.add({row.id: row.added_at for row in gallery.rows([1, 2])}, tokens)
        assert gallery.search(unit(1, 1), 9)[0][0].id == 1
        time.sleep(0.4)
        assert [hit.id for hit in gallery.search(unit(1, 1), 9)[0]] == [2]
        assert within(PATIENCE, lambda: not is_stored(tmp_path, 1))
        assert within(PATIENCE, lambda: list(file.ids()) == [2])
        assert stored(tmp_path).count(b"\x4d" * 8) == 1
    assert is_stored(tmp_path, 2)


def test_tokens_of_an_interrupted_deletion_are_erased_at_the_next_opening(
    gallery: Gallery, tmp_path: Path, monkeypatch
):
    ids = [add_secret(gallery, number) for number in range(2)]
    tokens = PictureTokens(codes=np.full((2, 2, 4), 77, np.int8), scales=np.ones((2, 2), "f4"))
    with TokenFile(tmp_path / "g.tokens", fingerprint="a", tokens=2, width=4) as file:
        file.add({row.id: row.added_at for row in gallery.rows(ids)}, tokens)

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("finegrain.gallery.sqlite.followed_store.forget_tokens", killed)
            with pytest.raises(KeyboardInterrupt):
                gallery.delete(ids[:1])
        assert sorted(file.ids()) == ids
        Gallery(tmp_path / "g").close()
        assert sorted(file.ids()) == ids[1:]
        assert not is_stored(tmp_path, 0)


# --- the clock --------------------------------------------------------------------------

START = datetime(2026, 5, 1, 8, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("finegrain.times.now", clock)
    monkeypatch.setattr("finegrain.gallery.sqlite.followed_store.TIDY_SECONDS", 0)
    return clock


def num_stored(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM picture").fetchone()
    connection.close()
    return int(count)


def test_a_clock_that_jumps_ahead_deletes_nothing(clock: Clock, tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(unit(3), [None] * 3, expire_after=30 * DAY)
        assert len(gallery.search(unit(1), 9)[0]) == 3
        clock.time += 3650 * DAY
        for _ in range(20):
            assert gallery.search(unit(1), 9) == [[]]
        with pytest.warns(GalleryWarning, match=r"If the clock is right: expire\(trust_clock"):
            assert gallery.expire() == 0
        Gallery(tmp_path / "g").close()
        assert num_stored(tmp_path / "g") == 3
        clock.time = START + DAY  # it is corrected
        assert len(gallery.search(unit(1), 9)[0]) == len(gallery) == 3
        assert gallery.expire() == 0


def test_a_second_look_an_hour_later_is_trusted(clock: Clock, tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(unit(3), [None] * 3, expire_after=30 * DAY)
    clock.time += 60 * DAY  # the gallery was not used
    Gallery(tmp_path / "g").close()
    clock.time += timedelta(minutes=59)
    Gallery(tmp_path / "g").close()
    assert num_stored(tmp_path / "g") == 3
    clock.time += timedelta(minutes=1)
    Gallery(tmp_path / "g").close()
    assert num_stored(tmp_path / "g") == 0


def test_the_user_can_confirm_the_clock(clock: Clock, tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(unit(3), [None] * 3, expire_after=30 * DAY)
        clock.time += 60 * DAY
        assert gallery.expire(trust_clock=True) == 3
        assert num_stored(tmp_path / "g") == 0


def test_a_gallery_of_an_older_format_has_no_trusted_time(clock: Clock, tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(unit(3), [None] * 3, expire_after=DAY)
        clock.time += 1.5 * DAY
        with gallery._store.writing() as connection:  # type: ignore[union-attr]
            connection.execute("UPDATE gallery SET clock = NULL")
        with pytest.warns(GalleryWarning):
            assert gallery.expire() == 0
        clock.time += timedelta(hours=1)
        assert gallery.expire() == 3
