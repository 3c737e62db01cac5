"""Multiple-choice questions, the right answer first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A picture or a caption, and what to choose from.

    Attributes:
        images: The picture that is asked about; or the pictures to choose from.
        captions: The captions to choose from; or the caption that is asked about.

    One of the two has a single entry, and of the other the first entry is right.
    """

    images: tuple[Path, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Questions of one kind.

    Attributes:
        name: Such as ``color swap``.
        choices: Answers to choose from, the same number for every question.
        questions: One a picture at most, so that each is evidence of its own.
        wanted: What a picture needs to be asked about, for where there are few.
    """

    name: str
    choices: int
    questions: Sequence[Question]
    wanted: str
