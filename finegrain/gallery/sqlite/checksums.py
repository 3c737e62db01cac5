"""Checksums of rows, which detect damage to the columns of a picture.

A checksum is the CRC-32 of a canonical JSON text of all columns of a picture, its metadata, and
the CRC-32 of its thumbnail. It is stored with the row. The vector has one of its own in its table,
because vectors are read without their rows.

SQLite can check whole pages (``cksumvfs``), but that is a loadable extension which is not part of
Python's :mod:`sqlite3`. CRC-32 is sufficient: it guards against faults of disks and memory, not
against forgery, and encoding the text takes most of the time.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from finegrain.records import Scalar

Attribute = tuple[str, str, Scalar]
"""Name, kind and value of a metadata column as it is stored: a boolean is 0 or 1."""

CELLS = (
    "id, image, pid, camera, time, track, added_at, expires_at, source, size, mtime, digest, "
    "thumbnail_checksum"
)
"""The columns of the table ``picture`` that a checksum covers."""

UNKNOWN = -1
"""In place of the checksum of a row that an older version wrote."""

UNREADABLE = -2
"""In place of the checksum of a row that was damaged when its checksum was to be computed."""

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def row_checksum(cells: Sequence[Any], attributes: Iterable[Attribute]) -> int:
    """The checksum of a row.

    Args:
        cells: Values of :data:`CELLS`.
        attributes: Metadata, in any order.

    Raises:
        TypeError: A cell is a blob, which no intact row holds.
    """
    return zlib.crc32(_encode([cells, sorted(attributes)]).encode())


@dataclass(slots=True)
class StoredRow:
    """A row as it is stored.

    Attributes:
        cells: Values of :data:`CELLS`.
        checksum: The stored checksum.
        attributes: Its metadata.
    """

    cells: tuple[Any, ...]
    checksum: object
    attributes: list[Attribute] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether the checksum is right, or not known yet."""
        if self.checksum == UNKNOWN:
            return True
        try:
            return row_checksum(self.cells, self.attributes) == self.checksum
        except TypeError:  # damage has turned a text into a blob
            return False
