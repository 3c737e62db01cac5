"""The roles of a table's columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finegrain.data.catalog.patterns import ImagePattern
from finegrain.records import BUILT_IN

IMAGE_COLUMNS = (
    "image", "file_name", "image_path", "filename", "image_link", "image_url", "img_path", "path"
)  # fmt: skip
"""Usual names of the column of pictures, the most likely first."""

CAPTION_COLUMNS = ("caption", "text", "captions", "title", "description")
"""Usual names of the column of captions, the most likely first."""

PID, CAMERA, TIME, TRACK = "pid", "camera", "time", "track"


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a table by role. None means that no column has the role.

    Attributes:
        image: Column with the path, the URL or the bytes of the picture.
        pattern: Pattern of the picture's path, instead of a column.
        captions: Columns of captions, all of which are used.
        needs_caption: Whether a row without a caption is left out.
        time_format: Format of times; see :func:`parse_time`.
    """

    image: str | None
    captions: tuple[str, ...]
    needs_caption: bool = True
    pattern: ImagePattern | None = None
    pid: str | None = None
    split: str | None = None
    camera: str | None = None
    time: str | None = None
    track: str | None = None
    time_format: str | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that every row must have."""
        pictures = self.pattern.columns if self.pattern is not None else (self.image,)
        captions = self.captions if self.needs_caption else ()
        # a column named pid is optional
        pid = None if self.pid == PID else self.pid
        named = (*pictures, *captions, pid, self.split)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def consumed(self) -> tuple[str | None, ...]:
        """Columns that do not also become metadata."""
        return (self.image, self.split, self.camera, self.time, self.track, *self.captions)


def normal_name(column: str) -> str:
    """A column's name for comparison: lower case, with spaces for underscores."""
    return " ".join(column.replace("_", " ").lower().split())


def named(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first wanted column that a table has, ignoring case, spaces and underscores."""
    known = {normal_name(column): column for column in reversed(columns)}
    exact = next((name for name in wanted if name in columns), None)
    return exact or next((known[n] for n in map(normal_name, wanted) if n in known), None)


def spelled(columns: Sequence[str], name: str | None) -> str | None:
    """A column in the spelling of the table, or the given name if the table does not have it."""
    return None if name is None else named(columns, (name,)) or name


def kept_name(column: str) -> str:
    """The name of a column in metadata, which avoids a gallery's own columns such as ``id``."""
    return f"{column}_" if column in BUILT_IN else column


def renamed(columns: Sequence[str], roles: Columns) -> Mapping[str, str]:
    """Columns whose names a gallery reserves, with their new names."""
    consumed = (*roles.consumed, *((PID,) if roles.pid == PID else ()))
    return {name: kept_name(name) for name in columns if name in BUILT_IN and name not in consumed}
