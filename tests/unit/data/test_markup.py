"""Conversion of HTML descriptions to words, as feeds of shops have them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.data.catalog.markup import strip_html


@pytest.mark.parametrize(
    ("markup", "words"),
    [
        ("red coat", "red coat"),
        ("  red \n coat ", "red coat"),
        ("<p>Warm &amp; light.</p><ul><li>Wool</li></ul>", "Warm & light. Wool"),
        ("<b>red</b>dish <I>c</I>oat", "reddish coat"),
        ("one<br>two<BR/>three", "one two three"),
        ("<a href='x' title=\"a > b < c\">shirt</a>", "shirt"),
        ('<img alt = "red > blue">shirt', "shirt"),
        ("a<!-- <b>hidden</b> -->b", "ab"),
        ("a<style>p {color: red}</style>b<script>if (a < b) {}</SCRIPT >c", "a b c"),
        ("<!DOCTYPE html><?xml version='1'?>coat", "coat"),
        (
            "length < 5 cm, width > 3 cm & &lt;b&gt; &eacute; &#233;",
            "length < 5 cm, width > 3 cm & <b> é é",
        ),
        ("it's <3", "it's <3"),
        ("coat <b never closed", "coat"),
        ("coat <b <i>warm</i>", "coat warm"),
        ("coat <!-- never closed", "coat"),
        ("coat <script>never closed", "coat"),
        ('coat <a href="never closed>warm', "coat"),
        ("<", "<"),
        ("", ""),
    ],
)
def test_markup_is_removed_and_words_are_kept(markup: str, words: str):
    assert strip_html(markup) == words


def steps(work: Callable[[], object]) -> int:
    """Number of executed lines of Python, a measure of time without the noise of a clock."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "piece",
    ["<a ", "<!--", "<!", "<script>", "<a '", '<a ="', "<a ='\"", "</", "<a <", "&lt", "<a b='<a "],
)
def test_the_work_is_linear_in_the_length_of_the_text(piece: str):
    few, many = (steps(lambda n=n: strip_html(piece * n)) for n in (100, 1000))
    assert many <= 11 * few
    strip_html(piece * 200_000)


@given(st.text(alphabet="<>\"'=/! ab&;-x", max_size=60))
def test_any_text_can_be_converted(markup: str):
    words = strip_html(markup)
    assert words == " ".join(words.split())


def test_a_too_long_character_reference_is_one_unknown_character():
    assert (
        strip_html("a &#" + "9" * 50_000 + "; b &#x" + "f" * 50_000 + "; c")
        == "a \ufffd b \ufffd c"
    )
