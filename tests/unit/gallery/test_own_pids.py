"""A pid stays as the user gave it: in files, over time, and in every form of a gallery."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.doctor import examine
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite.migrations import STEPS
from finegrain.gallery.sqlite.schema import APPLICATION_ID

DIM = 4
PIDS = [10, "10", "R1", "007", 7, -(2**63), None, "é", ""]


def unit(count: int) -> np.ndarray:
    return np.tile(np.eye(1, DIM, dtype=np.float32), (count, 1))


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as opened:
        opened.add(unit(len(PIDS)), [f"{n}.jpg" for n in range(len(PIDS))], pids=PIDS)
        yield opened


def pids(gallery: Gallery) -> list[object]:
    return [row.pid for row in gallery.rows(gallery)]


def selected(gallery: Gallery, where: str) -> list[object]:
    hits = gallery.search(unit(1), 99, where=where)[0]
    return [row.pid for row in gallery.rows([hit.id for hit in hits])]


def test_pids_are_stored_unchanged(gallery: Gallery):
    assert pids(gallery) == PIDS
    with Gallery(gallery.path) as again:
        assert [(type(pid), pid) for pid in pids(again)] == [(type(pid), pid) for pid in PIDS]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("pid = 10", [10, "10"]),
        ("pid = '10'", [10, "10"]),
        ("pid = 10.0", [10, "10"]),
        ("pid = '007'", ["007"]),
        ("pid = 7", [7]),
        ("pid in ('R1', 7)", ["R1", 7]),
        ("pid not in ('R1', 7, '10', '')", ["007", -(2**63), "é"]),
        ("pid != 10", ["R1", "007", 7, -(2**63), "é", ""]),
        ("not pid = 10", ["R1", "007", 7, -(2**63), "é", ""]),
        ("pid < 10", [7, -(2**63)]),
        ("pid > 'R'", ["R1", "é"]),
        ("pid is null", [None]),
    ],
)
def test_filters_compare_the_spelling_of_pids(gallery: Gallery, where: str, expected: list[object]):
    assert selected(gallery, where) == expected


def test_pids_of_one_spelling_are_one_group(gallery: Gallery):
    hits = gallery.search(unit(1), 99, group_by="pid")[0]
    assert [row.pid for row in gallery.rows([hit.id for hit in hits])] == [
        pid for pid in PIDS if pid != "10"
    ]


@pytest.mark.parametrize("name", ["export", "export.parquet"])
def test_pids_are_preserved_by_an_export(gallery: Gallery, tmp_path: Path, name: str):
    gallery.export(tmp_path / name)
    with Gallery(tmp_path / "again", dim=DIM) as again:
        again.load(tmp_path / name)
        assert [(type(pid), pid) for pid in pids(again)] == [(type(pid), pid) for pid in PIDS]


def test_a_gallery_of_format_2_keeps_its_numbers(tmp_path: Path):
    path = tmp_path / "old.gallery"
    connection = sqlite3.connect(path, isolation_level=None)
    for step in STEPS[:2]:
        step(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 2")
    connection.execute("INSERT INTO gallery (fingerprint, dim) VALUES (NULL, 4)")
    for id_, pid in ((1, 3), (2, None), (3, 2**62)):
        connection.execute(
            "INSERT INTO picture (id, pid, added_at) VALUES (?, ?, '2026-01-31T12:00:00.000Z')",
            (id_, pid),
        )
        connection.execute("INSERT INTO vector VALUES (?, ?)", (id_, unit(1).tobytes()))
    connection.close()
    with Gallery(path) as gallery:
        assert pids(gallery) == [3, None, 2**62]
        assert gallery.has_numbered_pids()
        gallery.add(unit(1), [None], pids=["3"])
        assert selected(gallery, "pid = 3") == [3, "3"]
        gallery.delete([1, 3])
        assert not gallery.has_numbered_pids()


def test_the_doctor_reports_pids_that_may_be_row_numbers(tmp_path: Path):
    path = tmp_path / "a.gallery"
    with Gallery(path, dim=DIM) as gallery:
        gallery.add(unit(1), ["a.jpg"], pids=[1])
    assert "an older version wrote pids" not in examine(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE gallery SET numbered_until = 1")
    assert "--replace --pid-column NAME" in examine(path)
