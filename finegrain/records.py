"""The plain values that pass between the parts of finegrain."""

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
"""What a metadata value may be: what JSON and every store can hold."""

Pid = int | str
"""The key of a person or product, as its owner gave it: a number or a text."""

Kind = Literal["text", "number", "boolean", "time", "key"]
"""A time is text of one form; a key is a number or a text, and equal to what is spelled alike."""

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
"""The columns that every row of a gallery has, and what they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One picture and the captions that describe it.

    Attributes:
        image: Path of the picture.
        captions: What people wrote about it; at least one.
        pid: Key of the person or product, as the dataset states it. Pictures of one pid are
            positives of each other's captions. None where no key is stated: the picture is then
            the only one of its identity.
        camera: Name of the camera, where the dataset states it.
        metadata: Further columns, carried through to the gallery and its filters.
    """

    image: Path
    captions: tuple[str, ...]
    pid: Pid | None
    camera: str | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


def printable(text: str) -> str:
    """Text in which characters that steer a terminal are escaped; line breaks stay.

    Names of files and values of tables come from elsewhere, and may hold any character.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


class ProblemKind(StrEnum):
    """What kind of thing was left out; a summary counts problems by it."""

    PICTURE = "unreadable picture"
    MISSING = "missing picture"
    ROW = "bad row"
    REPEATED = "row whose picture an earlier row shows"
    VALUE = "value that was left empty"
    ENDING = "file that is not a picture"
    TABLE = "table or archive in a folder"
    VIDEO = "video in a folder"
    LINK = "link that was not followed"
    FOLDER = "unreadable folder"
    SYSTEM = "file of the operating system"
    EXCLUDED = "excluded file"
    EXPIRED = "picture whose time is over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A row, file or value that was left out, and why.

    Attributes:
        where: Path of the file, or the table with the line of the row.
        why: Reads as a sentence that begins with what `where` names.
        kind: What was left out.
    """

    where: str
    why: str
    kind: ProblemKind = ProblemKind.PICTURE

    @property
    def is_loss(self) -> bool:
        """Whether a picture or a row was left out, rather than a value or a foreign file."""
        return self.kind in (ProblemKind.PICTURE, ProblemKind.MISSING, ProblemKind.ROW)

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One part of a dataset: ``train``, ``val`` or ``test``.

    Attributes:
        name: Its name.
        samples: What can be read of it.
        problems: What was left out.
        notes: What was guessed about the format, for people.
    """

    name: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_pids(self) -> int:
        return len(np.unique(self.identities()))

    def identities(self) -> NDArray[np.int64]:
        """A number from 0 for the identity of each sample, ``[N]``; see :func:`identities`."""
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
    """Number identities from 0, as classifiers and metrics need them, ``[N]``.

    Numbers come first, in their order, then texts, then the samples without a pid, each of which
    is an identity of its own. The number 10 and the text "10" are one identity, as in a gallery.
    """
    spelled = [None if pid is None else str(pid) for pid in pids]
    known = sorted({pid for pid in spelled if pid is not None}, key=_number_first)
    numbers = {pid: number for number, pid in enumerate(known)}
    labels = np.empty(len(spelled), np.int64)
    following = len(known)
    for row, pid in enumerate(spelled):
        labels[row] = following if pid is None else numbers[pid]
        following += pid is None
    return labels


def pid_of(value: Scalar) -> Pid | None:
    """The pid that a cell of a table states: whole numbers and texts as they are.

    Tables with gaps hold whole numbers as ``10.0``; that is the pid 10. A number of more than 64
    bits, which no gallery can hold, becomes its digits.
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
    """What a match head looks at of each picture: ``codes * scales[..., None]``.

    Attributes:
        codes: ``[N, T, W]``, int8, or float32 straight from an eager model.
        scales: One for each token, float32 ``[N, T]``.
    """

    codes: NDArray[Any]
    scales: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, some: slice | NDArray[np.intp]) -> PictureTokens:
        return PictureTokens(codes=self.codes[some], scales=self.scales[some])


class Matched(NamedTuple):
    """What a match head says of one caption and each of ``N`` pictures.

    Attributes:
        logits: Log-odds of a match, ``[N]``; their sigmoid is its probability.
        scores: What the head orders pictures by when it is asked alone, ``[N]``. The same as
            ``logits`` where the released code of a method does not order by another value.
    """

    logits: NDArray[np.floating]
    scores: NDArray[np.floating]
