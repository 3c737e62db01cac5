"""Files of older formats are converted to the current one, completely or not at all."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery import Gallery, Row
from finegrain.gallery.sqlite import migrations
from finegrain.gallery.sqlite.migrations import FIRST_SCHEMA, STEPS
from finegrain.gallery.sqlite.rows import add_checksums
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
    result = set(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    connection.close()
    return result


def test_an_old_gallery_opens_with_all_of_its_rows(old: Path):
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


def test_metadata_with_the_name_of_a_new_column_is_renamed(old: Path):
    with Gallery(old) as gallery:
        first, second, fourth = gallery.rows([1, 2, 4])
        assert (first.time, first.track) == ("2026-01-30T08:00:00.000Z", "7")
        assert first.metadata == {"price": 1.5, "sale": True, "time_": None}
        # time_ was used by the first picture
        assert second.metadata == {"expires_at_": "2000-01-01", "time__": "at noon", "track_": 8}
        assert fourth.metadata == {"time__": 1200}
        assert (second.time, second.track, fourth.time) == (None, None, None)
        assert gallery.columns()["time"] == "time"
        assert gallery.columns()["time__"] == "number or text"
        assert len(gallery.search(VECTORS[:1], 9, where="track_ = 8 or time__ = 1200")[0]) == 2


def test_a_migrated_file_has_the_layout_of_a_new_one(old: Path, tmp_path: Path):
    Gallery(old).close()
    Gallery(tmp_path / "new", dim=4).close()
    assert tables(old) == tables(tmp_path / "new")


def test_a_migration_is_atomic(old: Path, monkeypatch):
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


def test_an_old_gallery_that_cannot_be_written_is_an_error(old: Path, monkeypatch):
    monkeypatch.setattr("finegrain.gallery.sqlite.schema._writable", lambda _path: False)
    with pytest.raises(GalleryError, match="format 1 and must be brought to format 10"):
        Gallery(old)


def test_the_version_is_the_number_of_steps():
    assert len(STEPS) == migrations.SCHEMA_VERSION == 10


FORMAT_4 = Path(__file__).parents[2] / "fixtures" / "galleries" / "format4"
"""A gallery of 12 pictures that the version before row checksums wrote, and its content."""


@pytest.fixture
def format_4(tmp_path: Path) -> Path:
    path = tmp_path / "format4.gallery"
    path.write_bytes(gzip.decompress(FORMAT_4.with_suffix(".gallery.gz").read_bytes()))
    return path


def content(gallery: Gallery) -> dict[str, Any]:
    """All rows, vectors and thumbnails, in the form of the fixture."""
    ids = list(gallery)
    scores = {hit.id: hit.score for hit in gallery.search(np.eye(8, dtype=np.float32)[:1], 99)[0]}
    return {
        "rows": [_stored_columns(row) for row in gallery.rows(ids)],
        "first_numbers": [scores[id_] for id_ in ids],
        "thumbnails": {str(i): jpeg.hex() for i, jpeg in gallery.thumbnails(ids).items()},
    }


def _stored_columns(row: Row) -> dict[str, Any]:
    """The columns of a row; its thumbnail and bias are read separately."""
    separate = {"thumbnail", "bias"}
    return {name: value for name, value in asdict(row).items() if name not in separate}


def expected_content() -> dict[str, Any]:
    expected = json.loads(FORMAT_4.with_suffix(".json").read_text(encoding="utf-8"))
    vectors = expected.pop("vectors")
    first_numbers = [vectors[str(row["id"])][0] for row in expected["rows"]]
    return {**expected, "first_numbers": pytest.approx(first_numbers, abs=1e-7)}


def lacking(path: Path) -> int:
    """Number of rows without a checksum."""
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM picture WHERE checksum = -1").fetchone()
        return int(count)


def test_a_gallery_without_row_checksums_gets_them(format_4: Path):
    with Gallery(format_4, fingerprint="plan-a", dim=8, create=False) as gallery:
        assert content(gallery) == expected_content()
        assert gallery.check().is_valid
        gallery.update([1], {"colour": "blue"})
        assert gallery.check().is_valid
    assert lacking(format_4) == 0
    with closing(sqlite3.connect(format_4)) as connection:
        connection.execute("UPDATE picture SET mtime = 5 WHERE id = 1")
        connection.execute("UPDATE thumbnail SET jpeg = x'FFD8FF' WHERE picture = 4")
        connection.commit()
    with pytest.warns(GalleryWarning, match="the row of picture 1 is damaged"):
        gallery = Gallery(format_4)
    with gallery, pytest.warns(GalleryWarning, match="the thumbnail of picture 4 is damaged"):
        assert gallery.thumbnails([4]) == {}


def test_an_interrupted_computation_of_checksums_continues(format_4: Path, monkeypatch):
    monkeypatch.setattr("finegrain.gallery.sqlite.rows._CHUNK_ROWS", 5)
    calls = []

    def failing(connection: sqlite3.Connection) -> None:
        calls.append(1)
        add_checksums(connection)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("finegrain.gallery.sqlite.store.add_checksums", failing)
        with pytest.raises(KeyboardInterrupt):
            Gallery(format_4)
    total = len(expected_content()["rows"])
    assert 0 < lacking(format_4) == total - 5
    with Gallery(format_4) as gallery:
        assert content(gallery) == expected_content()
        assert gallery.check().is_valid
    assert lacking(format_4) == 0


def test_a_gallery_is_searched_if_checksums_cannot_be_written(format_4: Path, monkeypatch):
    def full(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("finegrain.gallery.sqlite.store.add_checksums", full)
        with Gallery(format_4) as gallery:
            assert content(gallery) == expected_content()
            gallery.update([1], {"colour": "blue"})
            assert gallery.check().is_valid
    assert lacking(format_4) == len(expected_content()["rows"])
    with Gallery(format_4) as gallery:
        assert gallery.rows([1])[0].metadata["colour"] == "blue"
        assert gallery.check().is_valid
    assert lacking(format_4) == 0


def test_a_row_that_is_damaged_before_it_has_a_checksum_is_named(format_4: Path):
    with closing(sqlite3.connect(format_4)) as connection:
        connection.execute("UPDATE picture SET source = CAST(x'ff' AS TEXT) WHERE id = 1")
        connection.commit()
    with pytest.warns(GalleryWarning, match="the row of picture 1 is damaged"):
        gallery = Gallery(format_4)
    with gallery:
        assert [row.id for row in gallery.rows([1, 3])] == [3]
    assert lacking(format_4) == 0
