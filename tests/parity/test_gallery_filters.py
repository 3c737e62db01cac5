"""The SQL of a filter against its definition in Python, on random filters and rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.gallery import Gallery
from finegrain.gallery.filters.conditions import BUILT_IN, evaluate
from finegrain.gallery.filters.syntax import parse

TEXTS = ["", "a", "b", "B", "é", "z\0", "it's", "10", "\U0001f600", "\uffff"]
NUMBERS = [-1, 0, 1, 1.0, 0.5, 0.1 + 0.2, 2**53, 2**53 + 1, float(2**53), -(2**63), 1e300, -0.0]
TIMES = ["2026-05-01T08:00", "2026-05-01T08:00:00.5Z", "2026-05-01T10:00+02:00", "1999-12-31"]
PIDS = [-1, 0, 1, 2**53, "1", "01", "b", "1.0", "", "é", -(2**63), str(2**63)]
KINDS = {
    "text": TEXTS,
    "number": NUMBERS,
    "boolean": [True, False],
    "time": TIMES,
    "key": [*PIDS, 1.0, 0.5],
}
MIXED = ["text", "number", "boolean"]
METADATA = {"t": ["text"], "n": ["number"], "b": ["boolean"], "mixed": MIXED, "never": []}


def spelled(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Three hundred rows in which every value and every gap occurs."""
    random = np.random.default_rng(3)

    def maybe(values):
        return None if random.random() < 0.3 else values[random.integers(len(values))]

    rows = [
        {
            name: maybe([value for kind in kinds for value in KINDS[kind]] or [None])
            for name, kinds in METADATA.items()
            if random.random() < 0.9
        }
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
    name = draw(st.sampled_from(sorted(kinds)))
    kind = draw(st.sampled_from(kinds[name] or MIXED))
    values = st.sampled_from(KINDS[kind]).map(spelled)
    form = draw(st.sampled_from(["null", "in", "like", "between", "compare", "compare"]))
    word = draw(st.sampled_from(["", "not "]))
    if form == "like" and kind in ("text", "time", "key"):
        return f"{name} {word}like {spelled(draw(st.text('abB1%_é', max_size=4)))}"
    if form == "between" and kind != "boolean":
        return f"{name} {word}between {draw(values)} and {draw(values)}"
    if form == "null":
        return f"{name} is {draw(st.sampled_from(['', 'not ']))}null"
    if form == "in":
        several = st.sampled_from(kinds[name] or MIXED).flatmap(
            lambda one: st.sampled_from(KINDS[one]).map(spelled)
        )
        listed = ", ".join(draw(st.lists(several, min_size=1, max_size=4)))
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


@settings(max_examples=300, deadline=None)
@given(expression=expressions)
def test_sql_agrees_with_the_definition(gallery: Gallery, expression: str):
    kinds = {name: set(kinds) for name, kinds in METADATA.items()}
    condition = parse(expression, kinds)
    expected = [
        row.id
        for row in gallery.rows(gallery)
        if evaluate(
            condition,
            {
                **row.metadata,
                "id": row.id,
                "image": row.image,
                "pid": row.pid,
                "camera": row.camera,
                "time": row.time,
                "track": row.track,
                "added_at": row.added_at,
                "expires_at": row.expires_at,
            },
        )
    ]
    (hits,) = gallery.search([[1, 0]], 300, where=expression)
    assert [hit.id for hit in hits] == expected
