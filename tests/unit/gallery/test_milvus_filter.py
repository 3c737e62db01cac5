"""Filters as Milvus expressions; the contract of all galleries tests their results."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.gallery.filters.milvus import _test_real, _test_whole, quoted, to_milvus
from finegrain.gallery.filters.syntax import parse

SYMBOLS = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
COLUMNS = {"n": {"number"}, "t": {"text"}}

wholes = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([-(2**63), -(2**63) + 1, 2**63 - 1, 2**53, 2**53 + 1, 0]),
)
reals = st.floats(allow_nan=False, allow_infinity=False)
near = st.integers(2**53 - 4, 2**53 + 4)


def holds(test: str, value: int | float) -> bool:
    """Evaluate ``x < 3`` for a value of x, or an expression of ids that is constant."""
    field, symbol, literal = test.split()
    if field == "id":
        return symbol == ">"
    number = int(literal) if literal.lstrip("-").isdigit() else float(literal)
    return SYMBOLS[symbol](value, number)


@given(
    result=st.one_of(wholes, near),
    symbol=st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    asked=st.one_of(wholes, near, reals, near.map(float), near.map(lambda n: n / 2)),
)
def test_whole_numbers_compare_exactly(result: int, symbol, asked: int | float):
    assert holds(_test_whole("x", symbol, asked), result) == SYMBOLS[symbol](result, asked)


@given(
    result=st.one_of(reals, near.map(float), wholes.map(float)),
    symbol=st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    asked=st.one_of(wholes, near, reals),
)
def test_real_numbers_compare_exactly(result: float, symbol, asked: int | float):
    assert holds(_test_real("x", symbol, asked), result) == SYMBOLS[symbol](result, asked)


@given(symbol=st.sampled_from(list(SYMBOLS)), asked=st.one_of(wholes, st.just(-(2.0**63))))
def test_the_smallest_number_is_never_written(symbol, asked):
    symbol = "=" if symbol == "==" else symbol
    assert str(-(2**63)) not in _test_whole("x", symbol, asked)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("pid < 3", "(has_pid == true) and (pid < 3)"),
        ("not pid < 3", "(has_pid == true) and (pid >= 3)"),
        ("camera < 'b'", '(camera != "") and (camera < "=b")'),
        ("not camera < 'b'", '(camera != "") and (camera >= "=b")'),
        ("t = 'b'", '(exists metadata["t:t"]) and (metadata["t:t"] == "b")'),
        ("camera is null", 'camera == ""'),
        ("not camera is null", 'camera != ""'),
        (
            "not (not pid is null)",
            '(has_pid == false) and (not (exists metadata["p:pid"]))',
        ),
    ],
)
def test_every_comparison_has_a_test_of_presence(expression: str, expected: str):
    compiled = to_milvus(parse(expression, COLUMNS))
    while compiled.startswith("((") and compiled.endswith("))"):
        compiled = compiled[1:-1]
    assert compiled.strip("()") == expected.strip("()")


@given(st.text())
def test_literals_are_escaped(text: str):
    literal = quoted(text)
    assert literal[0] == literal[-1] == '"'
    inner = literal[1:-1].replace("\\\\", "")
    assert not {"\n", "\r"} & set(inner)
    assert inner.count('"') == inner.count('\\"')
    assert not inner.replace('\\"', "").endswith("\\")
