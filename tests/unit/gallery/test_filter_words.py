"""Quoted columns, ``like``, ``between`` and days, compared with a literal evaluation of every
row."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import FilterError, QueryError
from finegrain.gallery import Gallery
from finegrain.gallery.filters.syntax import MAX_DEPTH, parse
from finegrain.gallery.filters.wildcards import is_like

COLOURS = ["Navy", "navy blue", "Black", None, "red_1", "100%", "", "İpek", "a\nb"]
PRICES = [None, 5, 10, 10.0, 12.5, 20, 20.5, -3, 10**12]
TIMES = [
    None, "2026-04-30T23:59:59.999", "2026-05-01", "2026-05-01T00:00:00.001",
    "2026-05-01T23:59:59.999", "2026-05-02", "2026-05-03T12:00", "9999-12-31T23:59:59.999",
    "0001-01-01",
]  # fmt: skip


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory):
    with Gallery(tmp_path_factory.mktemp("words") / "g", dim=2) as opened:
        opened.add(
            np.tile(np.float32([1, 0]), (9, 1)),
            [f"{n}.jpg" for n in range(9)],
            pids=[1, "1", "Nav", 12, None, "x", "y", "z", 100],
            times=TIMES,
            metadata=[{"Base Colour": c, "price": p} for c, p in zip(COLOURS, PRICES, strict=True)],
        )
        yield opened


def places(gallery: Gallery, where: str) -> list[int]:
    hits = gallery.search([[1, 0]], 9, where=where)[0]
    return [hit.id - 1 for hit in hits]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("\"Base Colour\" = 'Navy'", [0]),
        ("`Base Colour` = \"Navy\"", [0]),
        ("\"Base Colour\" LIKE 'navy%'", [0, 1]),
        ("\"Base Colour\" like '%\\_1'", [4]),
        ("\"Base Colour\" like '%\\%'", [5]),
        ("\"Base Colour\" not like '%a%'", [4, 5, 6, 7]),
        ("not \"Base Colour\" like '%a%'", [4, 5, 6, 7]),
        ("\"Base Colour\" like 'a_b'", [8]),
        ("\"Base Colour\" like ''", [6]),
        ("pid like '1%'", [0, 1, 3, 8]),
        ("image like '%.JPG'", list(range(9))),
        ("price between 10 and 20", [2, 3, 4, 5]),
        ("price not between 10 and 20", [1, 6, 7, 8]),
        ("not price between 10 and 20", [1, 6, 7, 8]),
        ("price between 20 and 10", []),
        ("price between 10 and 12.5 and \"Base Colour\" = 'Black'", [2]),
        ("time = '2026-05-01'", [2, 3, 4]),
        ("time != '2026-05-01'", [1, 5, 6, 7, 8]),
        ("time < '2026-05-01'", [1, 8]),
        ("time <= '2026-05-01'", [1, 2, 3, 4, 8]),
        ("time > '2026-05-01'", [5, 6, 7]),
        ("time >= '2026-05-01'", [2, 3, 4, 5, 6, 7]),
        ("time = '2026-05-01T00:00'", [2]),
        ("time in ('2026-05-01', '2026-05-03T12:00')", [2, 3, 4, 6]),
        ("time not in ('2026-05-01', '2026-05-03')", [1, 5, 7, 8]),
        ("time between '2026-05-01' and '2026-05-02'", [2, 3, 4, 5]),
        ("time = '9999-12-31'", [7]),
        ("time <= '9999-12-31'", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("time > '9999-12-31'", []),
    ],
)  # fmt: skip
def test_filters_match_the_expected_rows(gallery: Gallery, where: str, expected: list[int]):
    assert places(gallery, where) == expected


@settings(max_examples=100, deadline=None)
@given(
    symbol=st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    day=st.sampled_from(["2026-04-30", "2026-05-01", "2026-05-02", "9999-12-31", "20260501"]),
)
def test_a_day_is_compared_as_a_whole(gallery: Gallery, symbol: str, day: str):
    asked = datetime.fromisoformat(day).date()
    days = {n: datetime.fromisoformat(t).date() for n, t in enumerate(TIMES) if t is not None}
    literal = {"=": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__",
               ">=": "__ge__"}[symbol]  # fmt: skip
    expected = [n for n, day in days.items() if getattr(day, literal)(asked)]
    assert places(gallery, f"time {symbol} '{day}'") == expected


@settings(max_examples=400, deadline=None)
@given(
    text=st.text("abB%_\\\n", max_size=8),
    pattern=st.text("abB%_\\", max_size=6),
)
def test_like_equals_a_regular_expression(text: str, pattern: str):
    literal = re.sub(
        r"\\(.)|\\$|(%)|(_)|(.)",
        lambda m: ".*" if m[2] else "." if m[3] else re.escape(m[1] or m[4] or "\\"),
        pattern,
        flags=re.DOTALL,
    )
    expected = re.fullmatch(literal, text, re.DOTALL | re.IGNORECASE) is not None
    assert is_like(text, pattern) == expected


def test_a_hostile_pattern_is_read_once():
    assert not is_like("a" * 20_000, "%a" * 2000 + "%b")


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("Base Colour = 'Navy'", 'Write that column as "Base Colour", in double quotes'),
        ("base_colour = 'Navy'", 'Did you mean "Base Colour"?'),
        ("\"Base Color\" = 'x'", 'Did you mean "Base Colour"?'),
        ("price like '1%'", "price holds number, and '' is text"),
        ("price between true and 3", "have no order"),
        ("price between 1", "expected 'and'; it ends here"),
        ("time between 'noon' and '2026-05-01'", "compares with a time such as"),
        ("'price' = 3", "expected a column name"),
        ("\"price = 3", "this string is never closed"),
        ("price like 3", "expected a value"),
    ],
)  # fmt: skip
def test_errors_mark_the_position(gallery: Gallery, where: str, why: str):
    with pytest.raises(FilterError) as caught:
        gallery.search([[1, 0]], 1, where=where)
    assert why in str(caught.value)


def test_a_day_does_not_add_depth():
    for leaf in (
        "time = '2026-05-01'",
        "time in ('2026-05-01', '2026-05-02')",
        "id between 1 and 2",
    ):
        deepest = "not (" * (MAX_DEPTH - 1) + leaf + ")" * (MAX_DEPTH - 1)
        parse(deepest, {})
        with pytest.raises(FilterError, match="nests deeper"):
            parse(f"not ({deepest})", {})


# --- notes on filters with few matches ----------------------------------------------------


@pytest.mark.parametrize(
    ("where", "notes"),
    [
        ("\"Base Colour\" = 'black'", ["no picture has Base Colour = 'black'; there is 'Black'"]),
        (
            "not \"Base Colour\" in ('NAVY')",
            ["no picture has Base Colour = 'NAVY'; there is 'Navy'"],
        ),
        ("camera = 'gate-3'", ["no picture has a value in the column 'camera'"]),
        ("camera is null", []),
        ("\"Base Colour\" = 'Black' and price = 7", []),
        ("pid = 'nav'", ["no picture has pid = 'nav'; there is 'Nav'"]),
        ("pid = 100", []),
        ("time = '2020-01-01'", []),
    ],
)  # fmt: skip
def test_a_filter_without_matches_gets_notes(gallery: Gallery, where: str, notes: list[str]):
    assert gallery.notes_on(where) == notes


def test_an_unknown_value_gets_a_note_with_known_ones(gallery: Gallery):
    (note,) = gallery.notes_on("\"Base Colour\" = 'zzz'")
    assert note.startswith("no picture has Base Colour = 'zzz'; there are '', '100%', 'Black'")


def test_grouping_needs_a_known_column(gallery: Gallery, tmp_path: Path):
    with pytest.raises(QueryError, match="no picture in the gallery has a 'track'") as caught:
        gallery.search([[1, 0]], 3, group_by="track")
    assert "Columns with values are: pid, time, image, Base Colour, price" in str(caught.value)
    assert len(gallery.search([[1, 0]], 9, group_by="Base Colour")[0]) == 9
    with Gallery(tmp_path / "empty", dim=2) as empty:
        assert empty.search([[1, 0]], 3, group_by="track") == [[]]


def test_an_offset_is_a_later_page(gallery: Gallery):
    every = gallery.search([[1, 0], [0, 1]], 9)
    for offset in range(11):
        page = gallery.search([[1, 0], [0, 1]], 3, offset=offset)
        assert page == [hits[offset : offset + 3] for hits in every]
    for offset in (-1, 1.0, True, "1"):
        with pytest.raises(QueryError, match="offset is a whole number"):
            gallery.search([[1, 0]], 1, offset=offset)
