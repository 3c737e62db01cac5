"""Filters mean what they mean in SQL: SQLite itself evaluates the same text."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.gallery.filters.conditions import evaluate
from finegrain.gallery.filters.syntax import parse
from finegrain.records import Scalar

VALUES: Mapping[str, Sequence[Scalar]] = {
    "camera": ["", "a", "b", "B", "it's", "é", "\U0001f600"],
    "Base Colour": ["a", "ab", "b%", "_b"],
    "price": [-1, 0, 1.0, 0.5, 0.1 + 0.2, 2**53, 2**53 + 1, -(2**63), 1e300],
    "sale": [True, False],
    "time": ["1999-12-31T00:00:00.000Z", "2026-05-01T08:00:00.000Z"],
    "never": [1, "a"],
}
KINDS = {"Base Colour": {"text"}, "price": {"number"}, "sale": {"boolean"}, "never": set[str]()}


def literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else "'" + value.replace("'", "''") + "'"


@st.composite
def comparisons(draw) -> str:
    column = draw(st.sampled_from(sorted(VALUES)))
    name = f'"{column}"'
    values = st.sampled_from(VALUES[column]).map(literal)
    word = draw(st.sampled_from(["", "not "]))
    form = draw(st.sampled_from(["compare", "compare", "between", "in", "null", "like"]))
    if form == "null":
        return f"{name} is {word}null"
    if form == "in":
        return f"{name} {word}in ({', '.join(draw(st.lists(values, min_size=1, max_size=4)))})"
    if form == "like" and column in ("camera", "Base Colour"):
        return f"{name} {word}like {literal(draw(st.text('abB%_', max_size=4)))}"
    if form == "between" and column != "sale":
        return f"{name} {word}between {draw(values)} and {draw(values)}"
    symbols = ["=", "==", "!=", "<>"] + ["<", "<=", ">", ">="] * (column != "sale")
    return f"{name} {draw(st.sampled_from(symbols))} {draw(values)}"


expressions = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda term: f"not {term}"),
        inner.map(lambda term: f"not ({term})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' and '.join(terms)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' or '.join(terms)})"),
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Scalar | None]]:
    """Rows with every value and every missing value."""
    draw = random.Random(3)
    return [
        {
            "id": id_,
            **{
                column: None if column == "never" or draw.random() < 0.4 else draw.choice(values)
                for column, values in VALUES.items()
            },
        }
        for id_ in range(1, 101)
    ]


@pytest.fixture(scope="module")
def database(rows: list[dict[str, Scalar | None]]) -> Iterator[sqlite3.Connection]:
    with sqlite3.connect(":memory:") as connection:
        names = ", ".join(f'"{name}"' for name in rows[0])
        connection.execute(f"CREATE TABLE picture ({names})")
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(
            f"INSERT INTO picture VALUES ({marks})", [tuple(row.values()) for row in rows]
        )
        yield connection


@settings(max_examples=400, deadline=None)
@given(expression=expressions)
def test_a_filter_matches_the_rows_that_sqlite_returns(rows, database, expression: str):
    by_sqlite = database.execute(f"SELECT id FROM picture WHERE {expression} ORDER BY id")
    condition = parse(expression, KINDS)
    assert [row["id"] for row in rows if evaluate(condition, row)] == [id_ for (id_,) in by_sqlite]
