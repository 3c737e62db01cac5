"""Columns in memory: what they store, how they follow the file, and when SQL is used instead."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegrain.gallery import Gallery
from finegrain.gallery.columns import followed, table
from finegrain.gallery.columns.followed import FollowedColumns
from finegrain.gallery.columns.table import Column
from finegrain.gallery.filters.conditions import Condition

FILTERS = [
    "price >= 10 and price < 60 and category = 'coat' and stock = true and not brand = 'b3'",
    "brand in ('b1', 'b2', 'b7') or category is null",
    "pid = 5 or pid = 'p3'",
    "camera != 'c1' and not category like 'c%'",
    "time < '2026-05-02' or note is not null",
    "id > 20 and price between 20 and 40",
]


def values(random: np.random.Generator, count: int) -> dict[str, Any]:
    """Arguments of ``Gallery.add`` for ``count`` pictures."""

    def maybe(value: Any) -> Any:
        return None if random.random() < 0.2 else value

    return {
        "vectors": np.tile(np.float32([1, 0]), (count, 1)),
        "images": [None] * count,
        "pids": [maybe([5, "p3", 7][random.integers(3)]) for _ in range(count)],
        "cameras": [maybe(f"c{random.integers(3)}") for _ in range(count)],
        "times": [maybe(f"2026-05-0{random.integers(1, 4)}") for _ in range(count)],
        "metadata": [
            {
                "price": maybe(float(random.integers(100))),
                "category": maybe(["coat", "dress"][random.integers(2)]),
                "stock": maybe(bool(random.integers(2))),
                "brand": maybe(f"b{random.integers(9)}"),
                "note": None,
            }
            for _ in range(count)
        ],
    }


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery(tmp_path / "g", dim=2) as opened:
        opened.add(**values(np.random.default_rng(0), 40))
        yield opened


@pytest.fixture
def columns(gallery: Gallery) -> FollowedColumns:
    return FollowedColumns(gallery._store, quick_steps=1)


@pytest.fixture
def without_sql(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an error if a filter is evaluated by SQL."""

    def failing(_condition: Condition) -> None:
        raise AssertionError("SQL evaluates the filter")

    monkeypatch.setattr(gallery._store, "ids_matching_within", lambda *_: None)
    monkeypatch.setattr(gallery._store, "ids_matching", failing)


def column(columns: FollowedColumns, name: str) -> Column:
    columns.ids_where(f"{name} is null")
    read = columns._seen.table.columns[name]
    assert read is not None
    return read


# --- following the file -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_columns_follow_all_changes_by_another_process(
    gallery: Gallery, columns: FollowedColumns, monkeypatch: pytest.MonkeyPatch, seed: int
):
    monkeypatch.setattr(table, "BLOCK_ROWS", 16)
    random = np.random.default_rng(seed)
    with Gallery(gallery.path) as other:
        for _ in range(25):
            ids = list(other)
            some = [int(id_) for id_ in random.choice(ids, random.integers(1, 4))] if ids else []
            changes = values(random, 1)["metadata"][0]
            match random.integers(5):
                case 0:
                    other.add(**values(random, int(random.integers(1, 30))))
                case 1:
                    other.update(some, {name: changes[name] for name in ("price", "category")})
                case 2:
                    other.update(some, {"note": f"note {random.integers(99)}", "pid": 5})
                case 3:
                    other.delete(some)
                case 4:
                    other.update(f"category = '{changes['category']}'", {"stock": True})
            where = FILTERS[random.integers(len(FILTERS))]
            assert set(columns.ids_where(where)) & set(other) == set(other.ids_where(where))


def test_only_changed_rows_are_read_again(
    gallery: Gallery, columns: FollowedColumns, monkeypatch: pytest.MonkeyPatch
):
    columns.ids_where(FILTERS[0])
    read_again: list[list[int]] = []
    real = followed.updated

    def updated(run: Any, rows: Any, name: str, ids: Any) -> Any:
        read_again.append(ids.tolist())
        return real(run, rows, name, ids)

    monkeypatch.setattr(followed, "updated", updated)
    monkeypatch.setattr(followed, "read", None)
    columns.ids_where(FILTERS[0])
    assert read_again == []
    gallery.update([3, 5], {"price": 30.0})
    gallery.add(**values(np.random.default_rng(1), 2))
    columns.ids_where(FILTERS[0])
    assert read_again == [[3, 5, 41, 42]] * 4  # one for each column of the filter


def test_a_search_sees_a_column_that_another_process_has_changed(gallery: Gallery, without_sql):
    def prices() -> set[int]:
        return {hit.id for hit in gallery.search([[1, 0]], 99, where="price = 12345")[0]}

    gallery.update([1], {"price": 12345})
    assert prices() == {1}
    with Gallery(gallery.path) as other:
        other.update([2, 9], {"price": 12345.0})
        assert prices() == {1, 2, 9}
        other.update([1], {"price": None})
        other.delete([2])
        assert prices() == {9}


def test_rows_of_deleted_pictures_are_forgotten_once_they_are_the_majority(
    gallery: Gallery, columns: FollowedColumns
):
    columns.ids_where("price > 0")
    gallery.delete(range(1, 11))
    columns.ids_where("price > 0")
    assert len(columns._seen.table) == 40
    gallery.delete(range(11, 31))
    columns.ids_where("price > 0")
    assert len(columns._seen.table) == 10


def test_expired_and_damaged_pictures_match_nothing(
    gallery: Gallery, columns: FollowedColumns, monkeypatch: pytest.MonkeyPatch
):
    new = {**values(np.random.default_rng(1), 1), "times": None, "cameras": ["c9"]}
    gallery.add(**new, expire_after=60)
    gallery.add(**new)
    assert columns.ids_where("camera = 'c9'").tolist() == [41, 42]
    later = datetime.now(UTC) + timedelta(hours=1)
    monkeypatch.setattr("finegrain.times.now", lambda: later)
    assert columns.ids_where("camera = 'c9'").tolist() == [42]
    gallery._store.damaged = frozenset([42])
    assert columns.ids_where("camera = 'c9'").tolist() == []


# --- what is stored ---------------------------------------------------------------------


def test_a_row_takes_one_byte_for_a_text_and_eight_for_a_number_or_a_time(
    gallery: Gallery, columns: FollowedColumns
):
    for name, num_bytes in {"brand": 1, "stock": 1, "camera": 1, "price": 8, "time": 8}.items():
        (cells,) = column(columns, name).cells
        assert sum(one.nbytes for one in cells if one is not None) == num_bytes * 40


def test_more_than_255_texts_take_two_bytes(gallery: Gallery, columns: FollowedColumns):
    assert column(columns, "brand").cells[0].codes.dtype == np.uint8
    for start in range(0, 300, 15):  # few at a time, so that the column is not read again
        brands = [{"brand": f"n{number}"} for number in range(start, start + 15)]
        gallery.add(np.tile([1, 0], (15, 1)), [None] * 15, metadata=brands)
        columns.ids_where("brand = 'b1'")
    assert column(columns, "brand").cells[0].codes.dtype == np.uint16
    assert columns.ids_where("brand = 'n299'").tolist() == [340]
    assert columns.ids_where("brand = 'b1'").tolist() == gallery.ids_where("brand = 'b1'")


@pytest.mark.parametrize("limit", [{"MOST_WORDS": 5}, {"MOST_CHARACTERS": 12}])
def test_a_column_of_many_different_texts_keeps_none(
    gallery: Gallery, columns: FollowedColumns, monkeypatch: pytest.MonkeyPatch, limit
):
    for name, value in limit.items():
        monkeypatch.setattr(table, name, value)
    brands = column(columns, "brand")
    assert (brands.codes, brands.cells[0].codes.dtype) == ({}, np.uint8)
    for condition in ("= 'b1'", "!= 'b1'", "not in ('b1', 'b2')", "like 'b%'", "> 'b2'", "is null"):
        where = f"brand {condition}"
        assert columns.ids_where(where).tolist() == gallery.ids_where(where)
    gallery.update([7], {"brand": "new"})
    gallery.update([8], {"brand": None})
    assert columns.ids_where("brand = 'new'").tolist() == [7]
    assert 8 in columns.ids_where("brand is null")


def test_a_column_stops_keeping_texts_when_they_become_too_many(
    gallery: Gallery, columns: FollowedColumns, monkeypatch: pytest.MonkeyPatch
):
    assert len(column(columns, "brand").codes) == 9
    monkeypatch.setattr(table, "MOST_WORDS", 9)
    gallery.update([7], {"brand": "new"})
    assert not column(columns, "brand").keeps_words
    where = "brand in ('new', 'b1')"
    assert columns.ids_where(where).tolist() == gallery.ids_where(where)


# --- the choice between columns and SQL -------------------------------------------------


@pytest.mark.parametrize("where", FILTERS)
def test_a_filter_over_columns_runs_no_sql(gallery: Gallery, columns, where: str, without_sql):
    assert 0 < len(columns.ids_where(where)) < 40


def test_a_filter_that_sqlite_evaluates_quickly_reads_no_column(gallery: Gallery):
    columns = FollowedColumns(gallery._store)
    assert columns.ids_where("id = 3").tolist() == [3]
    assert columns._seen.table.columns == {}


@pytest.mark.parametrize(
    "where",
    [
        "time like '%-02T%'",
        "pid like '%5'",
        "not big = 9007199254740993",
        "broken = 'x'",
        "price is not null and broken = 'x'",
    ],
)
def test_sql_evaluates_what_columns_cannot(gallery: Gallery, columns: FollowedColumns, where: str):
    gallery.update([1, 2], {"big": 2**53 + 1, "broken": "x"})
    gallery.update([3], {"big": 2.0**53, "broken": "y", "price": 5})
    with closing(sqlite3.connect(gallery.path)) as connection, connection:
        connection.execute(
            "UPDATE attribute SET value = CAST(x'ff' AS TEXT) WHERE name = 'broken' AND value = 'y'"
        )
    assert columns.ids_where(where).tolist() == gallery.ids_where(where)


def test_only_texts_of_rows_that_match_the_other_terms_are_read(
    gallery: Gallery, columns: FollowedColumns, monkeypatch: pytest.MonkeyPatch, without_sql
):
    monkeypatch.setattr(table, "MOST_WORDS", 5)
    read_texts: list[tuple[str, list[int]]] = []
    groups = gallery._store.groups

    def reading(name: str, ids: list[int]) -> Any:
        read_texts.append((name, ids))
        return groups(name, ids)

    monkeypatch.setattr(gallery._store, "groups", reading)
    in_stock = [row for row in gallery.rows(gallery) if row.metadata["stock"]]
    expected = [row.id for row in in_stock if (row.metadata["brand"] or "b9") <= "b4"]
    assert columns.ids_where("stock = true and brand <= 'b4'").tolist() == expected
    assert read_texts == [("brand", [row.id for row in in_stock])]


def test_a_row_that_changes_between_two_terms_is_judged_by_one_state(
    gallery: Gallery, columns: FollowedColumns, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(table, "MOST_WORDS", 5)
    gallery.update([7], {"price": 1, "brand": "z"})
    where = "price = 1 and brand < 'b9'"
    assert columns.ids_where(where).tolist() == []
    select = columns._selection

    def then_changed(condition: Condition) -> Any:
        selection = select(condition)
        gallery.update([7], {"price": 2, "brand": "a"})
        return selection

    monkeypatch.setattr(columns, "_selection", then_changed)
    assert columns.ids_where(where).tolist() == []


def test_numbers_are_compared_exactly(gallery: Gallery, columns: FollowedColumns):
    gallery.update([1], {"count": 2.0**53})
    gallery.update([2], {"count": 2.0**53 + 2})
    for where, ids in {
        "count < 9007199254740993": [1],
        "count <= 9007199254740993": [1],
        "count > 9007199254740993": [2],
        "count >= 9007199254740993": [2],
        "count = 9007199254740993": [],
        "count in (1, 9007199254740993, 9007199254740994, 3, 4, 5, 6)": [2],
        "count < 9007199254740992.0": [],
    }.items():
        assert columns.ids_where(where).tolist() == ids


def test_an_error_while_columns_are_read_loses_no_change(
    gallery: Gallery, columns: FollowedColumns, monkeypatch: pytest.MonkeyPatch
):
    columns.ids_where("price > 0")
    gallery.update([3], {"price": 777})

    def failing(*_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(followed, "updated", failing)
        with pytest.raises(Exception, match="disk I/O error"):
            columns.ids_where("price = 777")
    assert columns.ids_where("price = 777").tolist() == [3]
