"""Patterns with columns in braces, which make paths of pictures or parse file names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finegrain.data.catalog.values import name_of
from finegrain.errors import DataError

_FIELD = re.compile(r"\{([^{}\[\]]+)(?:\[(\d*):(\d*)\])?\}")


@dataclass(frozen=True, slots=True)
class ImagePattern:
    """A pattern of the path of a row's picture, such as ``images/{id}.jpg``.

    ``{id[:3]}`` is the first three characters of the column ``id``, as in
    ``images/{id[:3]}/{id}.jpg``.

    Raises:
        DataError: The pattern has no column.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.columns or re.search(r"[{}]", _FIELD.sub("", self.text)):
            raise DataError(
                f"expected a pattern with columns in braces such as 'images/{{id}}.jpg', got "
                f"{self.text!r:.80}."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a row needs."""
        return tuple(dict.fromkeys(match[1] for match in _FIELD.finditer(self.text)))

    def path(self, cells: Mapping[str, Any]) -> str:
        """The path for one row.

        Raises:
            DataError: One of the columns is empty.
        """

        def filled(match: re.Match[str]) -> str:
            value = name_of(cells[match[1]])
            if value is None:
                raise DataError(f"has nothing in column {match[1]!r}, which names its picture")
            start, stop = match[2], match[3]
            return value[int(start or 0) : int(stop) if stop else None]

        return _FIELD.sub(filled, self.text)


class NamePattern:
    """A pattern that parses the names of pictures, such as ``{pid}_c{camera}s{seq}_{frame}``.

    The value of a column ends at the first occurrence of the text after it, and has at least one
    character. The last column extends to the end. The pattern describes the name without its
    ending. A pattern with ``/`` also describes the folders above it.

    Args:
        text: The pattern.

    Raises:
        DataError: The pattern has no column, repeats a column, or has two columns without a text
            between them.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        parts = re.split(r"\{([^{}]+)\}", text)
        self._start, self._columns, self._behind = parts[0], parts[1::2], parts[2::2]
        is_ambiguous = "" in self._behind[:-1] or len(set(self._columns)) < len(self._columns)
        if not self._columns or is_ambiguous or re.search(r"[{}]", "".join(parts[::2])):
            raise DataError(
                "expected a pattern with different columns in braces and something between them, "
                f"such as '{{pid}}_c{{camera}}s{{seq}}_{{frame}}', got {text!r:.80}."
            )

    def columns_of(self, path: str) -> dict[str, str]:
        """Parse the path of a picture, with ``/`` and without its ending, to values by column.

        Raises:
            DataError: The path does not match the pattern.
        """
        rest = "/".join(path.split("/")[-1 - self.text.count("/") :])
        fits = rest.startswith(self._start)
        rest = rest.removeprefix(self._start)
        columns = {}
        # No regular expression: a malicious name could make it backtrack for hours.
        for column, behind in zip(self._columns[:-1], self._behind[:-1], strict=True):
            place = rest.find(behind, 1)
            fits = fits and place > 0
            columns[column], rest = rest[:place], rest[place + len(behind) :]
        fits = fits and rest.endswith(self._behind[-1])
        columns[self._columns[-1]] = rest.removesuffix(self._behind[-1])
        if not fits or not all(columns.values()) or any("/" in value for value in columns.values()):
            raise DataError(f"its name does not have the form {self.text}")
        return columns
