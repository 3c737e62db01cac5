"""Finds the columns of a table by the names that the user gives, or by usual names."""

from __future__ import annotations

from dataclasses import dataclass, replace

from finegrain.data.catalog.columns import (
    CAMERA,
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    PID,
    TIME,
    TRACK,
    Columns,
    named,
    renamed,
    spelled,
)
from finegrain.data.catalog.patterns import ImagePattern
from finegrain.data.catalog.row import Table
from finegrain.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Names of columns from the user. Columns that are not named are found by their usual names.

    Attributes:
        for_search: Whether a picture is used only with the first row that shows it, and a row
            needs no caption unless a column of captions was named.
    """

    image: str | None = None
    pattern: str | None = None
    captions: tuple[str, ...] = ()
    pid: str | None = None
    split: str | None = None
    camera: str | None = None
    time: str | None = None
    time_format: str | None = None
    for_search: bool = False

    def with_split(self, split: str, *, image: str) -> Roles:
        """A copy with a column of splits, and a column of pictures unless one was named."""
        return replace(self, split=split, image=self.image or image)

    def in_table(self, table: Table) -> Columns:
        """The columns in the spelling of a table. Guesses are added to the table's notes."""
        there = table.columns
        self._require(table, self.camera, self.time)
        pattern = None if self.pattern is None else ImagePattern(self.pattern)
        image = spelled(there, self.image)
        if image is None and pattern is None:
            image = named(there, IMAGE_COLUMNS) or IMAGE_COLUMNS[0]
            if image != IMAGE_COLUMNS[0]:
                table.notes.append(f"the pictures are those of column {image!r}")
        captions = tuple(spelled(there, name) or name for name in self.captions)
        if not captions:
            guessed = named(there, CAPTION_COLUMNS)
            if guessed not in (None, CAPTION_COLUMNS[0]):
                table.notes.append(f"the captions are those of column {guessed!r}")
            captions = (guessed,) if guessed else () if self.for_search else CAPTION_COLUMNS[:1]
        columns = Columns(
            image=image if pattern is None else None,
            pattern=pattern,
            captions=captions,
            needs_caption=bool(self.captions) or not self.for_search,
            pid=spelled(there, self.pid) or named(there, (PID,)),
            split=spelled(there, self.split),
            camera=spelled(there, self.camera) or named(there, (CAMERA,)),
            time=spelled(there, self.time) or named(there, (TIME,)),
            track=named(there, (TRACK,)),
            time_format=self.time_format,
        )
        table.notes += [
            f"the column {theirs!r} is kept as {ours!r}, as every gallery has one called {theirs!r}"
            for theirs, ours in renamed(there, columns).items()
        ]
        return columns

    @staticmethod
    def _require(table: Table, *wanted: str | None) -> None:
        """Check that the table has columns which single rows may lack."""
        for name in wanted:
            if name is not None and named(table.columns, (name,)) is None:
                raise DataError(
                    f"expected a column {name!r} in {table.path}; it has "
                    f"{', '.join(table.columns)}.{did_you_mean(name, table.columns)}"
                )


USUAL_ROLES = Roles()
"""Every column by its usual name."""
