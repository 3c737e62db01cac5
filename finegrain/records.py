"""Values that the packages of finegrain exchange."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

_INT64 = range(-(2**63), 2**63)

Scalar = str | int | float | bool | None
"""Type of a metadata value, which JSON and every store can hold."""

Pid = int | str
"""Key of a person or product, as the dataset states it: a number or a text."""

Kind = Literal["text", "number", "boolean", "time", "key"]
"""Kind of a column. A ``time`` is a text of one fixed form. A ``key`` is a number or a text; keys
with the same spelling are equal."""

BUILT_IN: Mapping[str, Kind] = {
    "id": "number",
    "image": "text",
    "pid": "key",
    "camera": "text",
    "time": "time",
    "track": "text",
    "added_at": "time",
    "expires_at": "time",
}
"""The columns of every row of a gallery, with their kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One picture and the captions that describe it.

    Attributes:
        image: Path of the picture.
        captions: Texts that describe it; at least one.
        pid: Key of the person or product, as the dataset states it. Pictures with the same pid
            are positives of each other's captions. None if the dataset states no key; the picture
            then is the only one of its identity.
        camera: Name of the camera, if the dataset states it.
        metadata: Further columns for the gallery and its filters.
    """

    image: Path
    captions: tuple[str, ...]
    pid: Pid | None
    camera: str | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


def printable(text: str) -> str:
    r"""Escape the characters that control a terminal, except line breaks and tabs.

    File names and values of tables may hold any character.

    >>> print(printable("red\x1b[31m coat"))
    red\x1b[31m coat
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


class ProblemKind(StrEnum):
    """Kind of a problem; a summary counts problems by kind."""

    PICTURE = "unreadable picture"
    MISSING = "missing picture"
    ROW = "bad row"
    REPEATED = "row whose picture an earlier row shows"
    VALUE = "value that was left empty"
    ENDING = "file that is not a picture"
    TABLE = "table or archive in a folder"
    VIDEO = "video in a folder"
    LINK = "link that was not followed"
    DEAD_LINK = "link that leads nowhere"
    FOLDER = "unreadable folder"
    INPUT = "unreadable input"
    SYSTEM = "file of the operating system"
    EXCLUDED = "excluded file"
    EXPIRED = "picture whose time is over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A row, file or value that was left out, and why.

    Attributes:
        where: Path of the file, or the table and the line of the row.
        why: The reason: the rest of a sentence that begins with ``where``.
        kind: Kind of what was left out.
    """

    where: str
    why: str
    kind: ProblemKind = ProblemKind.PICTURE

    @property
    def is_loss(self) -> bool:
        """Whether a picture or a row is lost, rather than a value or an unrelated file."""
        return self.kind in (ProblemKind.PICTURE, ProblemKind.MISSING, ProblemKind.ROW)

    @property
    def is_unread(self) -> bool:
        """Whether there may be pictures below `where` that could not be seen."""
        return self.kind in (ProblemKind.FOLDER, ProblemKind.DEAD_LINK)

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One part of a dataset: ``train``, ``val`` or ``test``.

    Attributes:
        name: Name of the part.
        samples: The samples that could be read.
        problems: Rows, files and values that were left out.
        notes: Assumptions about the format, as text for the user.
    """

    name: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_pids(self) -> int:
        """Number of identities."""
        return len(np.unique(self.identities()))

    def identities(self) -> NDArray[np.int64]:
        """Number the identity of each sample, int64 ``[N]``; see :func:`identities`."""
        return identities(sample.pid for sample in self.samples)

    @property
    def num_captions(self) -> int:
        return sum(len(sample.captions) for sample in self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __str__(self) -> str:
        num_lost = sum(problem.is_loss for problem in self.problems)
        return (
            f"{self.name}: {len(self.samples)} pictures, {self.num_captions} captions, "
            f"{self.num_pids} identities" + (f", {num_lost} left out" if num_lost else "")
        )


def identities(pids: Iterable[Pid | None]) -> NDArray[np.int64]:
    """Number identities from 0, as classifiers and metrics need them.

    Integers come first in ascending order, then texts in alphabetical order, then the samples
    without a pid. Each sample without a pid is an identity of its own. The number 10 and the text
    "10" are the same identity, as in a gallery.

    Returns:
        Labels, int64 ``[N]``.

    Example:
        >>> identities([10, "a", None, "10", 2])
        array([1, 2, 3, 1, 0])
    """
    spelled = [None if pid is None else str(pid) for pid in pids]
    known = sorted({pid for pid in spelled if pid is not None}, key=_number_first)
    numbers = {pid: number for number, pid in enumerate(known)}
    labels = np.empty(len(spelled), np.int64)
    next_label = len(known)
    for row, pid in enumerate(spelled):
        labels[row] = next_label if pid is None else numbers[pid]
        next_label += pid is None
    return labels


def pid_of(value: Scalar) -> Pid | None:
    """Convert a cell of a table to a pid; integers and texts stay as they are.

    A table with empty cells holds integers as floats such as ``10.0``, which is the pid 10. An
    integer of more than 64 bits, which a gallery cannot store, becomes a text.

    >>> pid_of(10.0), pid_of("a17"), pid_of(""), pid_of(2.5)
    (10, 'a17', None, '2.5')
    """
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return pid_of(int(value) if value.is_integer() else str(value))
    return value if value in _INT64 else str(value)


def _number_first(pid: str) -> tuple[bool, int, str]:
    try:
        number = int(pid)
    except ValueError:
        return True, 0, pid
    return (False, number, pid) if str(number) == pid else (True, 0, pid)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureTokens:
    """Tokens of pictures that a match head reads: ``codes * scales[..., None]``.

    Attributes:
        codes: int8 ``[N, T, W]``, or float32 from an eager model.
        scales: Scale of each token, float32 ``[N, T]``.
    """

    codes: NDArray[Any]
    scales: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> PictureTokens:
        return PictureTokens(codes=self.codes[rows], scales=self.scales[rows])


class Matched(NamedTuple):
    """Output of a match head for one caption and ``N`` pictures.

    Attributes:
        logits: Log-odds of a match, ``[N]``. Their sigmoid is the probability of a match.
        scores: Values that order the pictures if the match head alone decides, ``[N]``. They equal
            ``logits`` unless the released code of a method orders by another value.
    """

    logits: NDArray[np.floating]
    scores: NDArray[np.floating]
