"""Results of filters in every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.errors import FilterError
from finegrain.gallery import Gallery, Row
from finegrain.gallery.filters.conditions import BUILT_IN, evaluate
from finegrain.gallery.filters.syntax import parse

AWKWARD = [
    "",
    "it's",
    'say "hi"',
    "back\\slash",
    "new\nline\r\t",
    "nul\0x",
    "\U0001f600",
    "日本",
    "\uffff",
    "{x}",
    "%41",
    '" or id > 0 or image == "',
    "' or 1=1; --",
    "\\",
    "=",
]

TEXTS = ["", "a", "b", "B", "é", "z\0", "it's", 'a"b', "c\\", "\n", "10", "\U0001f600", "\uffff"]
NUMBERS = [-1, 0, 1, 1.0, 0.5, 0.1 + 0.2, 2**53, 2**53 + 1, float(2**53), -(2**63), 1e300, -0.0]
ASKED = [*NUMBERS, 2**63 - 1, -(2**63) + 1, 9.3e18, -9.3e18, 1e-320, 2**62 + 1]
TIMES = ["2026-05-01T08:00", "2026-05-01T08:00:00.5Z", "2026-05-01T10:00+02:00", "1999-12-31"]
PIDS = [-1, 0, 1, 2**53, -(2**63), "1", "01", "b"]
KINDS = {"text": TEXTS, "number": NUMBERS, "boolean": [True, False], "time": TIMES, "key": PIDS}
MIXED = ["text", "number", "boolean"]
METADATA = {"t": ["text"], "n": ["number"], "b": ["boolean"], "mixed": MIXED, "never": []}


def spelled(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


@pytest.fixture(scope="module")
def catalogue(place: Callable[[str], str | Path]) -> Iterator[tuple[Gallery, list[Row]]]:
    """Two hundred rows with every value and every missing value."""
    random = np.random.default_rng(3)

    def maybe(values):
        return None if random.random() < 0.3 else values[random.integers(len(values))]

    rows = [
        {
            name: maybe([value for kind in kinds for value in KINDS[kind]] or [None])
            for name, kinds in METADATA.items()
            if random.random() < 0.9
        }
        for _ in range(200)
    ]
    with Gallery(place("catalogue"), dim=2) as opened:
        ids = opened.add(
            np.tile(np.float32([1, 0]), (200, 1)),
            [maybe(TEXTS) for _ in rows],
            pids=[maybe(PIDS) for _ in rows],
            cameras=[maybe(TEXTS) for _ in rows],
            times=[maybe(TIMES) for _ in rows],
            tracks=[maybe(TEXTS) for _ in rows],
            metadata=[{"never": None}, *rows[1:]],
        )
        yield opened, opened.rows(ids)


def matching(rows: Sequence[Row], expression: str) -> list[int]:
    condition = parse(expression, {name: set(kinds) for name, kinds in METADATA.items()})
    return [
        row.id
        for row in rows
        if evaluate(condition, {**row.metadata, **{name: getattr(row, name) for name in BUILT_IN}})
    ]


@st.composite
def leaves(draw) -> str:
    kinds = {**{name: [kind] for name, kind in BUILT_IN.items()}, **METADATA}
    name = draw(st.sampled_from(sorted(kinds)))

    def value() -> str:
        kind = draw(st.sampled_from(kinds[name] or MIXED))
        return spelled(draw(st.sampled_from(ASKED if kind == "number" else KINDS[kind])))

    form = draw(st.sampled_from(["null", "in", "like", "between", "compare", "compare"]))
    word = draw(st.sampled_from(["", "not "]))
    if form == "like" and (set(kinds[name]) & {"text", "time", "key"}):
        return f"{name} {word}like {spelled(draw(st.text('ab1%_é', max_size=4)))}"
    if form == "between" and "boolean" not in kinds[name] and kinds[name]:
        return f"{name} {word}between {value()} and {value()}"
    if form == "null":
        return f"{name} is {draw(st.sampled_from(['', 'not ']))}null"
    if form == "in":
        listed = ", ".join(value() for _ in range(draw(st.integers(1, 4))))
        return f"{name} {draw(st.sampled_from(['', 'not ']))}in ({listed})"
    asked = value()
    symbols = ["=", "!="] if asked in ("true", "false") else ["=", "!=", "<", "<=", ">", ">="]
    return f"{name} {draw(st.sampled_from(symbols))} {asked}"


expressions = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        inner.map(lambda term: f"not ({term})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' and '.join(terms)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' or '.join(terms)})"),
    ),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(expression=expressions)
def test_filters_agree_with_their_definition(catalogue, expression: str):
    gallery, rows = catalogue
    (hits,) = gallery.search([[1, 0]], 300, where=expression)
    assert [hit.id for hit in hits] == matching(rows, expression)


@pytest.mark.parametrize("column", ["image", "pid", "id", "time", "n", "mixed", "never"])
def test_every_operator_of_a_filter(catalogue, column: str):
    """All operators in one expression, unchanged and negated."""
    gallery, rows = catalogue
    value = {"image": "'b'", "mixed": "'a'", "time": "'2026-05-01T08:00'"}.get(column, "1")
    terms = [f"{column} {symbol} {value}" for symbol in ("=", "!=", "<", "<=", ">", ">=")]
    terms += [f"{column} {word} ({value}, {value})" for word in ("in", "not in")]
    terms += [f"{column} is null", f"{column} is not null"]
    for number, term in enumerate(terms):
        for expression in (term, f"not {term}"):
            if number % 3 == 0 or column in ("n", "mixed"):
                (hits,) = gallery.search([[1, 0]], 300, where=expression)
                assert [hit.id for hit in hits] == matching(rows, expression), expression


@pytest.fixture
def gallery(catalogue: tuple[Gallery, list[Row]]) -> Iterator[Gallery]:
    """The gallery of the catalogue; other rows are restored afterwards."""
    opened, _ = catalogue
    ids = set(opened)
    yield opened
    opened.delete(set(opened) - ids)


def test_special_characters_are_matched_and_inject_nothing(gallery: Gallery):
    ids = gallery.add(
        np.tile([1.0, 0.0], (len(AWKWARD), 1)),
        [f"{text}/x" for text in AWKWARD],
        cameras=AWKWARD,
        tracks=["awkward"] * len(AWKWARD),
        metadata=[{"text": text, text or "none": 1} for text in AWKWARD],
    )
    assert [row.camera for row in gallery.rows(ids)] == AWKWARD
    for id_, text in zip(ids, AWKWARD, strict=True):
        for column in ("camera", "text"):
            result = gallery.search(
                [[1, 0]], 300, where=f"track = 'awkward' and {column} = {spelled(text)}"
            )[0]
            assert [hit.id for hit in result] == [id_], text
    again = gallery.add(
        np.tile([1.0, 0.0], (len(AWKWARD), 1)),
        [f"{text}/x" for text in AWKWARD],
        on_duplicate="skip",
    )
    assert again == ids


def test_invalid_filters_are_refused(gallery: Gallery):
    size = len(gallery)
    with pytest.raises(FilterError, match="unknown column 'nn'"):
        gallery.search([[1, 0]], 1, where="nn = 1")
    with pytest.raises(FilterError, match="holds number"):
        gallery.search([[1, 0]], 1, where="n = 'x'")
    with pytest.raises(FilterError, match="got ';'"):
        gallery.delete_where("camera = 'x'; drop")
    assert len(gallery) == size
