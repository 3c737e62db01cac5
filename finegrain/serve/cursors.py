"""Places in an answer that stay where they are while pictures are added.

An offset counts from the best match, so that a new picture among the first matches moves all others
to later pages. A cursor also names the newest picture at the time of the first page, and later ones
are left out of all pages.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Self

from finegrain.errors import QueryError
from finegrain.gallery.filters.syntax import joined

BEGIN = ""
"""The cursor of a first page."""

MOST_OFFSET = 10_000
"""Largest number of matches before a page."""

_TEXT = re.compile(r"(\d{1,9}):(\d{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an answer.

    Attributes:
        offset: Number of best matches to skip.
        newest: Id of the newest picture that counts.
    """

    offset: int
    newest: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a cursor that :attr:`text` wrote.

        Raises:
            QueryError: It is another text.
        """
        try:
            plain = base64.urlsafe_b64decode(text.encode("ascii", "replace")).decode("ascii")
        except (binascii.Error, ValueError):
            plain = ""
        numbers = _TEXT.fullmatch(plain)
        is_within = numbers and int(numbers[1]) <= MOST_OFFSET and int(numbers[2]) < 2**63
        if numbers is None or not is_within:
            raise QueryError(
                f"expected '' for the first page or the cursor of an answer, got {text!r:.60}"
            )
        return cls(int(numbers[1]), int(numbers[2]))

    @property
    def text(self) -> str:
        """The cursor as clients send it."""
        return base64.urlsafe_b64encode(f"{self.offset}:{self.newest}".encode()).decode()

    def within(self, where: str | None) -> str:
        """A filter that also leaves out later pictures."""
        return joined([*([where] if where else []), f"id <= {self.newest}"])

    def after(self, count: int) -> Self | None:
        """The place behind some further matches; None if these are too many for another page."""
        offset = self.offset + count
        return type(self)(offset, self.newest) if offset <= MOST_OFFSET else None
