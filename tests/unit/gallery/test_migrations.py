"""Files of older formats are brought to the present one, whole or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite import migrations
from finegrain.gallery.sqlite.migrations import FIRST_SCHEMA, STEPS
from finegrain.gallery.sqlite.schema import APPLICATION_ID

VECTORS = np.eye(3, 4, dtype="<f4")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A gallery as the first release wrote it, by its SQL."""
    path = tmp_path / "old.gallery"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(FIRST_SCHEMA)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.execute("INSERT INTO gallery VALUES ('plan-a', 4)")
    for id_ in (1, 2, 4):
        connection.execute(
            "INSERT INTO picture VALUES (?, ?, ?, 'gate-3', '2026-01-31T12:00:00Z')",
            (id_, f"{id_}.jpg", 100 + id_),
        )
    connection.execute("UPDATE sqlite_sequence SET seq = 7")
    for id_, vector in zip((1, 2, 4), VECTORS, strict=True):
        connection.execute("INSERT INTO vector VALUES (?, ?)", (id_, vector.tobytes()))
    connection.execute("INSERT INTO thumbnail VALUES (1, ?)", (b"\xff\xd8\xff",))
    attributes = [
        (1, "price", "number", 1.5),
        (1, "sale", "boolean", 1),
        (1, "time", "text", "2026-01-30T10:00+02:00"),
        (2, "time", "text", "at noon"),
        (4, "time", "number", 1200),
        (1, "time_", "null", None),
        (1, "track", "text", "7"),
        (2, "track", "number", 8),
        (2, "expires_at", "text", "2000-01-01"),
    ]
    connection.executemany("INSERT INTO attribute VALUES (?, ?, ?, ?)", attributes)
    connection.executemany(
        "INSERT INTO seen VALUES (?, ?)", {(name, kind) for _, name, kind, _ in attributes}
    )
    connection.commit()
    connection.close()
    return path


def tables(path: Path) -> set[tuple[str, str]]:
    connection = sqlite3.connect(path)
    found = set(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    connection.close()
    return found


def test_an_old_gallery_opens_with_all_it_held(old: Path):
    with Gallery(old, fingerprint="plan-a", dim=4, create=False) as gallery:
        assert list(gallery) == [1, 2, 4]
        for id_, query in zip((1, 2, 4), VECTORS, strict=True):
            assert gallery.search([query], 1)[0][0].id == id_
        row = gallery.rows([1])[0]
        assert (row.image, row.pid, row.camera) == ("1.jpg", 101, "gate-3")
        assert row.added_at == "2026-01-31T12:00:00.000Z"
        assert row.expires_at is None
        assert gallery.thumbnail(1) == b"\xff\xd8\xff"
        hits = gallery.search(VECTORS[:1], 9, where="added_at = '2026-01-31T12:00'")[0]
        assert len(hits) == 3
        assert gallery.add(VECTORS[:1], [None], times=["2026-05-01"]) == [8]


def test_metadata_gives_way_to_the_new_columns(old: Path):
    with Gallery(old) as gallery:
        first, second, fourth = gallery.rows([1, 2, 4])
        assert (first.time, first.track) == ("2026-01-30T08:00:00.000Z", "7")
        assert first.metadata == {"price": 1.5, "sale": True, "time_": None}
        # time_ was taken by the first picture already
        assert second.metadata == {"expires_at_": "2000-01-01", "time__": "at noon", "track_": 8}
        assert fourth.metadata == {"time__": 1200}
        assert (second.time, second.track, fourth.time) == (None, None, None)
        assert gallery.columns()["time"] == "time"
        assert gallery.columns()["time__"] == "number or text"
        assert len(gallery.search(VECTORS[:1], 9, where="track_ = 8 or time__ = 1200")[0]) == 2


def test_a_migrated_file_is_laid_out_like_a_new_one(old: Path, tmp_path: Path):
    Gallery(old).close()
    Gallery(tmp_path / "new", dim=4).close()
    assert tables(old) == tables(tmp_path / "new")


def test_a_migration_happens_whole_or_not_at_all(old: Path, monkeypatch):
    before = tables(old)

    def failing(connection: sqlite3.Connection) -> None:
        STEPS[1](connection)
        connection.execute("SELECT * FROM missing")

    with monkeypatch.context() as patch:
        patch.setattr("finegrain.gallery.sqlite.schema.STEPS", (STEPS[0], failing, STEPS[2]))
        with pytest.raises(GalleryError, match="no such table: missing"):
            Gallery(old)
    assert tables(old) == before
    with Gallery(old) as gallery:
        assert list(gallery) == [1, 2, 4]


def test_an_old_gallery_that_cannot_be_written_says_so(old: Path, monkeypatch):
    monkeypatch.setattr("finegrain.gallery.sqlite.schema._writable", lambda _path: False)
    with pytest.raises(GalleryError, match="format 1 and must be brought to format 4"):
        Gallery(old)


def test_the_version_is_the_number_of_steps():
    assert len(STEPS) == migrations.SCHEMA_VERSION == 4
