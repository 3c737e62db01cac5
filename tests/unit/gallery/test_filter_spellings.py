"""Spellings of filters: quotes inside quotes, SQL's operators, reversed bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.errors import FilterError
from finegrain.gallery import Gallery
from finegrain.gallery.filters.conditions import evaluate
from finegrain.gallery.filters.syntax import parse

COLUMNS = {'a"b': {"number"}, "c`d": {"number"}, "e\\f": {"number"}, "it's": {"text"}, "": {"text"}}


def value_of(literal: str) -> object:
    return parse(f"camera = {literal}", {}).value  # type: ignore[union-attr]


@given(st.text(), st.sampled_from("'\""))
def test_doubled_quotes_and_backslashes_escape_quotes(text: str, quote: str):
    text = text.encode("utf-8", "ignore").decode()
    doubled = text.replace("\\", "\\\\").replace(quote, quote * 2)
    escaped = text.replace("\\", "\\\\").replace(quote, f"\\{quote}")
    if len(text) < 1000:
        assert value_of(quote + doubled + quote) == value_of(quote + escaped + quote) == text


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ('a"b', '"a""b" = 1'),
        ('a"b', '"a\\"b" = 1'),
        ('a"b', '`a"b` = 1'),
        ("c`d", "`c``d` <> 1"),
        ("c`d", '"c`d" = 1'),
        ("e\\f", '"e\\\\f" = 1'),
        ("it's", "\"it's\" = 'it''s'"),
        ("it's", "\"it's\" like 'it''s%'"),
        ("", "\"\" = ''"),
    ],
)
def test_a_quoted_column_may_contain_quotes(name: str, where: str):
    assert parse(where, COLUMNS).column.name == name  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("where", "advice"),
    [
        ('a"b = 1', r'"a\"b"'),
        ("e\\f = 1", r'"e\\f"'),
        ("'O''Brien' = 3", "expected a column name"),
        ("camera = 'x''", "never closed"),
        ("price in ()", "expected a value"),
        ("price = '7'", "price holds number, and '7' is text. Write it without quotes."),
        ("price in (7, '-7.5')", "Write it without quotes."),
        ("price = 'x'", "price holds number, and 'x' is text.\n"),
        ("camera = 7", "camera holds text, and 7 is number. Write it in quotes."),
        ("camera = true", "Write it in quotes."),
        ("sale = 'true'", "Write it without quotes."),
        ("sale = 'yes'", "sale holds boolean, and 'yes' is text.\n"),
        ("camera = “x”", "straight quotes"),
        ("‘camera’ = 'x'", "straight quotes"),
        ("price >< 3", "expected a value"),
        ("camera <> null", "use 'is null' or 'is not null'"),
    ],
)
def test_a_wrong_spelling_is_explained(where: str, advice: str):
    with pytest.raises(FilterError) as caught:
        parse(where, {**COLUMNS, "price": {"number"}, "sale": {"boolean"}})
    assert advice in str(caught.value)


def test_an_error_prints_no_control_characters():
    with pytest.raises(FilterError) as caught:
        parse("b\x1b[2J = 1", {"a\x1b[2J": {"text"}})
    with pytest.raises(FilterError) as unknown:
        parse("b = 1", {"a\x1b[2J": {"text"}})
    assert "\x1b" not in f"{caught.value}{unknown.value}"


def test_unequal_has_two_spellings():
    for symbol in ("!=", "<>"):
        condition = parse(f"price {symbol} 3", {"price": {"number"}})
        assert [evaluate(condition, {"price": p}) for p in (2, 3, None)] == [True, False, False]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory):
    with Gallery(tmp_path_factory.mktemp("spellings") / "g", dim=2) as opened:
        opened.add(
            np.tile(np.float32([1, 0]), (3, 1)),
            [None] * 3,
            times=["2026-05-01T12:00Z", "2026-05-01T23:30-02:00", None],
            metadata=[{"price": 5}, {"price": 15}, {"code": "b"}],
        )
        yield opened


@pytest.mark.parametrize(
    "where",
    [
        "price between 20 and 10",
        "price between 20.5 and 10.5",
        "code between 'b' and 'a'",
        "time between '2026-05-02' and '2026-05-01'",
        "price = 5 and (price > 7 or price between 9 and 1)",
    ],
)
def test_reversed_bounds_are_noted(gallery: Gallery, where: str):
    notes = gallery.notes_on(where)
    assert any("match nothing: write the lower one first" in note for note in notes)


@pytest.mark.parametrize(
    "where",
    [
        "price between 10 and 20",
        "price between 10 and 10",
        "not price between 10 and 20",
        "price not between 20 and 10",
        "time = '2026-05-01'",
        "time between '2026-05-01' and '2026-05-01'",
        "price >= 20 and price <= 10",
    ],
)
def test_other_bounds_are_not_noted(gallery: Gallery, where: str):
    assert gallery.notes_on(where) == []


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("time = '2026-05-01'", [1]),
        ("time = '2026-05-02'", [2]),
        ("time = '2026-05-02T01:30'", [2]),
        ("time = '2026-05-01T14:00+02:00'", [1]),
        ("time >= '2026-05-01T23:30-02:00'", [2]),
        ("time < '2026-05-02T01:30Z'", [1]),
    ],
)
def test_time_zones_are_converted(gallery: Gallery, where: str, ids: list[int]):
    assert gallery.ids_where(where) == ids


def test_a_pattern_of_a_percent_sign_alone_matches_every_text(gallery: Gallery, tmp_path: Path):
    assert gallery.ids_where("code like '%'") == gallery.ids_where("code like '%%'") == [3]
    assert gallery.ids_where("code like '\\%'") == gallery.ids_where("code like ''") == []
