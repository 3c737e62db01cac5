"""Which column of a table holds what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finegrain.data.catalog.patterns import ImagePattern
from finegrain.records import BUILT_IN

IMAGE_COLUMNS = (
    "image", "file_name", "image_path", "filename", "image_link", "image_url", "img_path", "path"
)  # fmt: skip
"""What the column of pictures is called, the likeliest first."""

CAPTION_COLUMNS = ("caption", "text", "captions", "title", "description")
"""What the column of captions is called, the likeliest first."""

PID, CAMERA, TIME, TRACK = "pid", "camera", "time", "track"


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of a table hold what; None where none does.

    Attributes:
        image: Path, address or bytes of the picture.
        pattern: Where the picture lies, instead.
        captions: All of these.
        needs_caption: Whether a row without a caption is left out.
        time_format: How times are written; see :func:`parse_time`.
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
        """What every row needs a cell for."""
        pictures = self.pattern.columns if self.pattern is not None else (self.image,)
        captions = self.captions if self.needs_caption else ()
        # one called pid is taken where it is there
        pid = None if self.pid == PID else self.pid
        named = (*pictures, *captions, pid, self.split)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def consumed(self) -> tuple[str | None, ...]:
        """What is not metadata as well."""
        return (self.image, self.split, self.camera, self.time, self.track, *self.captions)


def normal_name(column: str) -> str:
    """A column's name for comparison: lower case, with spaces for underscores."""
    return " ".join(column.replace("_", " ").lower().split())


def named(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of some names that a table has, in whatever case and with spaces or underscores."""
    known = {normal_name(column): column for column in reversed(columns)}
    exact = next((name for name in wanted if name in columns), None)
    return exact or next((known[n] for n in map(normal_name, wanted) if n in known), None)


def spelled(columns: Sequence[str], name: str | None) -> str | None:
    """A column that somebody named, as the table spells it; itself where there is none such."""
    return None if name is None else named(columns, (name,)) or name


def kept_name(column: str) -> str:
    """What metadata calls a column: a gallery has columns of its own, such as ``id``."""
    return f"{column}_" if column in BUILT_IN else column


def renamed(columns: Sequence[str], roles: Columns) -> Mapping[str, str]:
    """The columns whose names a gallery has for itself, and what they are called instead."""
    consumed = (*roles.consumed, *((PID,) if roles.pid == PID else ()))
    return {name: kept_name(name) for name in columns if name in BUILT_IN and name not in consumed}
