"""SQL and the columns in memory compared with the definition in Python, on random filters and
rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.gallery import Gallery
from finegrain.gallery.columns import table
from finegrain.gallery.columns.followed import FollowedColumns
from finegrain.gallery.filters.conditions import BUILT_IN, evaluate
from finegrain.gallery.filters.syntax import parse
from finegrain.records import Scalar

TEXTS = ["", "a", "b", "B", "é", "z\0", "it's", "10", "\U0001f600", "\uffff"]
NUMBERS = [-1, 0, 1, 1.0, 0.5, 0.1 + 0.2, 2**53, 2**53 + 1, float(2**53), -(2**63), 1e300, -0.0]
DOUBLES = [number for number in NUMBERS if float(number) == number]
TIMES = [
    "2026-05-01T08:00",
    "2026-05-01T08:00:00.5Z",
    "2026-05-01T10:00+02:00",
    "2026-05-01",
    "1999-12-31",
    "9999-12-31",
    "0001-01-01",
]
PIDS = [-1, 0, 1, 2**53, "1", "01", "b", "1.0", "", "é", -(2**63), str(2**63)]
KINDS = {
    "text": TEXTS,
    "number": NUMBERS,
    "boolean": [True, False],
    "time": TIMES,
    "key": [*PIDS, 1.0, 0.5],
}
PATTERNS = st.text("abB1%_é\\", max_size=4)
MIXED = ["text", "number", "boolean"]
METADATA = {
    "t": ["text"],
    "n": ["number"],
    "Whole or Half": ["number"],  # float64 represents each of these numbers exactly
    "b": ["boolean"],
    "mixed": MIXED,
    "never": [],
}


def spelled(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Three hundred rows with every value and every missing value."""
    random = np.random.default_rng(3)

    def maybe(values):
        return None if random.random() < 0.3 else values[random.integers(len(values))]

    stored = {
        name: [value for kind in kinds for value in KINDS[kind]] or [None]
        for name, kinds in METADATA.items()
    }
    stored["Whole or Half"] = DOUBLES
    stored["mixed"] = [*TEXTS, *DOUBLES, True, False]
    rows = [
        {name: maybe(values) for name, values in stored.items() if random.random() < 0.9}
        for _ in range(300)
    ]
    with Gallery(tmp_path_factory.mktemp("filters") / "g", dim=2) as opened:
        opened.add(
            np.tile(np.float32([1, 0]), (300, 1)),
            [maybe(TEXTS) for _ in rows],
            pids=[maybe(PIDS) for _ in rows],
            cameras=[maybe(TEXTS) for _ in rows],
            times=[maybe(TIMES) for _ in rows],
            tracks=[maybe(TEXTS) for _ in rows],
            metadata=[{"never": None}, *rows[1:]],
        )
        yield opened


@st.composite
def leaves(draw) -> str:
    kinds = {**{name: [kind] for name, kind in BUILT_IN.items()}, **METADATA}
    column = draw(st.sampled_from(sorted(kinds)))
    name = f'"{column}"' if " " in column else column
    kind = draw(st.sampled_from(kinds[column] or MIXED))
    values = st.sampled_from(KINDS[kind]).map(spelled)
    form = draw(st.sampled_from(["null", "in", "like", "between", "compare", "compare"]))
    word = draw(st.sampled_from(["", "not "]))
    if form == "like" and kind in ("text", "time", "key"):
        return f"{name} {word}like {spelled(draw(PATTERNS))}"
    if form == "between" and kind != "boolean":
        return f"{name} {word}between {draw(values)} and {draw(values)}"
    if form == "null":
        return f"{name} is {draw(st.sampled_from(['', 'not ']))}null"
    if form == "in":
        several = st.sampled_from(kinds[column] or MIXED).flatmap(
            lambda one: st.sampled_from(KINDS[one]).map(spelled)
        )
        listed = ", ".join(draw(st.lists(several, min_size=1, max_size=7)))
        return f"{name} {draw(st.sampled_from(['', 'not ']))}in ({listed})"
    symbols = ["=", "!="] if kind == "boolean" else ["=", "==", "!=", "<", "<=", ">", ">="]
    return f"{name} {draw(st.sampled_from(symbols))} {draw(values)}"


expressions = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        inner.map(lambda term: f"not ({term})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' and '.join(terms)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' or '.join(terms)})"),
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def rows(gallery: Gallery) -> list[dict[str, Scalar]]:
    """Values by column name."""
    return [
        {**row.metadata, **{name: getattr(row, name) for name in BUILT_IN}}
        for row in gallery.rows(gallery)
    ]


@pytest.fixture(scope="module")
def columns(gallery: Gallery) -> Iterator[FollowedColumns]:
    """Columns in several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "BLOCK_ROWS", 64)
        yield FollowedColumns(gallery._store, quick_steps=1)


@pytest.fixture(scope="module")
def wide_columns(gallery: Gallery) -> FollowedColumns:
    """Columns with more distinct texts than they store."""
    columns = FollowedColumns(gallery._store, quick_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "MOST_WORDS", 2)
        for name in [*BUILT_IN, "t", "n", '"Whole or Half"', "b", "mixed", "never"]:
            columns.ids_where(f"{name} is null")
    return columns


@settings(max_examples=300, deadline=None)
@given(expression=expressions)
def test_sql_and_columns_agree_with_the_definition(
    gallery: Gallery,
    rows: list[dict[str, Scalar]],
    columns: FollowedColumns,
    wide_columns: FollowedColumns,
    expression: str,
):
    condition = parse(expression, {name: set(kinds) for name, kinds in METADATA.items()})
    expected = [row["id"] for row in rows if evaluate(condition, row)]
    assert gallery.ids_where(expression) == expected
    assert columns.ids_where(expression).tolist() == expected
    assert wide_columns.ids_where(expression).tolist() == expected
