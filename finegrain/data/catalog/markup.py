"""Extracts the text of HTML."""

from __future__ import annotations

import html
import re

_INLINE = frozenset(["a", "b", "em", "font", "i", "mark", "s", "span", "strong", "sub", "u"])
_SILENT = ("script", "style")
_NAME = re.compile(r"/?([a-zA-Z][^\s/<>]*)")
_ENDLESS_REFERENCE = re.compile("&#[0-9]{100,};?")
_DELIMITER = re.compile(r"""[<>]|=\s{0,9}["']""")


def strip_html(markup: str) -> str:
    """Return the text of HTML in one line. Plain text is returned unchanged.

    The time is linear in the length of the text, because each character is read once. Comments,
    scripts and unclosed tags, which a browser does not show, are left out.

    >>> strip_html("<p>Warm &amp; light.</p><ul><li>Wool</li></ul>")
    'Warm & light. Wool'
    """
    if "<" not in markup and "&" not in markup:
        return " ".join(markup.split())
    pieces: list[str] = []
    at = 0
    while (start := markup.find("<", at)) >= 0:
        pieces.append(_unescaped(markup[at:start]))
        if markup.startswith("<!--", start):
            at = _after(markup, "-->", start + 4)
        elif (name := _NAME.match(markup, start + 1)) is not None:
            at = _end_of_tag(markup, name.end())
            tag = name[1].lower()
            if tag not in _INLINE:  # <b>red</b>dish is one word, <li>red<li>blue are two
                pieces.append(" ")
            if tag in _SILENT and markup[start + 1] != "/":
                at = _end_of_silence(markup, tag, at)
        elif markup[start + 1 : start + 2] in ("!", "?", "/"):
            at = _after(markup, ">", start)
        else:
            pieces.append("<")  # as in "length < 5 cm"
            at = start + 1
    pieces.append(_unescaped(markup[at:]))
    return " ".join("".join(pieces).split())


def _unescaped(text: str) -> str:
    # Python refuses to convert thousands of digits, and no character has so many.
    return html.unescape(_ENDLESS_REFERENCE.sub("\ufffd", text))


def _after(markup: str, end: str, at: int) -> int:
    """Position after the first ``end``, or after the whole text if there is none."""
    place = markup.find(end, at)
    return len(markup) if place < 0 else place + len(end)


def _end_of_tag(markup: str, at: int) -> int:
    """Position after a tag, or at the next tag if this one is not closed."""
    while (match := _DELIMITER.search(markup, at)) is not None:
        if match[0] == ">":
            return match.end()
        if match[0] == "<":
            return match.start()
        closing = markup.find(match[0][-1], match.end())
        if closing < 0:
            return len(markup)
        at = closing + 1
    return len(markup)


def _end_of_silence(markup: str, tag: str, at: int) -> int:
    match = re.compile(rf"</{tag}\b", re.IGNORECASE).search(markup, at)
    return len(markup) if match is None else match.start()
