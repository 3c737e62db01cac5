"""Patterns of ``like``: ``%`` matches any text, ``_`` one character; case is ignored.

A pattern is untrusted input, so its cost is bounded: the parts between the ``%`` are searched for
from left to right, each once, without backtracking. The parser bounds the length of a pattern.
"""

from __future__ import annotations

import functools
import re

_ANY, _ONE, _ESCAPE = "%", "_", "\\"


def is_like(text: str, pattern: str) -> bool:
    """Whether a whole text matches a pattern; a backslash escapes ``%``, ``_`` and itself."""
    first, *others = _parts(pattern)
    if not others:
        return first.fullmatch(text) is not None
    start = first.match(text)
    if start is None:
        return False
    position = start.end()
    *middle, last = others
    for part in middle:
        inside = part.search(text, position)
        if inside is None:
            return False
        position = inside.end()
    # Each character of a part matches exactly one of the text, so the last part has one place.
    begin = len(text) - last.groups
    return begin >= position and last.fullmatch(text, begin) is not None


@functools.lru_cache(maxsize=64)
def _parts(pattern: str) -> list[re.Pattern[str]]:
    parts = [""]
    characters = iter(pattern)
    for character in characters:
        if character == _ANY:
            parts.append("")
        elif character == _ONE:
            parts[-1] += "(.)"
        else:
            literal = next(characters, _ESCAPE) if character == _ESCAPE else character
            parts[-1] += f"({re.escape(literal)})"
    return [re.compile(part, re.DOTALL | re.IGNORECASE) for part in parts]
