"""Finds the row with the column names, which titles may precede."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from finegrain.data.catalog.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, normal_name

_FEEDS = ("image src", "product image url", "handle", "url handle")
_USUAL = frozenset(map(normal_name, (*IMAGE_COLUMNS, *CAPTION_COLUMNS, *_FEEDS)))
_DATA = re.compile(r"[+-]?[\d.,:/ -]*\d|.*\.[A-Za-z]{3,4}(?:[#?|;, ].*)?|[a-z+]+://.*", re.DOTALL)
"""Cells that are values and no names: numbers, dates, file names and URLs."""

_MAX_ABOVE = 20


def header_index(rows: Sequence[Sequence[str]]) -> int:
    """Index of the row with the column names, among the first rows of a table.

    This is the first row, unless shorter rows precede a row that may have column names. That row
    has a usual name such as ``image``, or is the first that is as long as most rows.
    """
    widths = [_width(row) for row in rows]
    if not rows or has_usual_names(rows[0]):
        return 0
    counts = Counter(widths[1:])
    usual = max(counts, key=lambda width: (counts[width], width), default=0)
    above = 0  # the longest row so far
    for index, row in enumerate(rows[:_MAX_ABOVE]):
        is_longer = index > 0 and widths[index] > above
        if is_longer and _are_names(row) and (has_usual_names(row) or widths[index] == usual):
            return index
        if widths[index] >= usual > 1:
            break  # the table has begun
        above = max(above, widths[index])
    return 0


def has_usual_names(row: Sequence[str]) -> bool:
    """Whether a row has a usual name of a column of pictures or captions."""
    return bool(_USUAL & {normal_name(cell) for cell in row})


def value_in_header(columns: Sequence[str]) -> str | None:
    """A column name that is the name of a picture, which means that the table has no header."""
    return next((name for name in columns if re.search(r"\.(jpe?g|png|webp)\b", name, re.I)), None)


def _width(row: Sequence[str]) -> int:
    return max((place for place, cell in enumerate(row, start=1) if cell.strip()), default=0)


def _are_names(row: Sequence[str]) -> bool:
    cells = [cell.strip() for cell in row[: _width(row)]]
    return all(cells) and not any(map(_DATA.fullmatch, cells)) and len(set(cells)) == len(cells)
