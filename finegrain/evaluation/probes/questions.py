"""Multiple-choice questions whose first answer is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One picture and several captions, or one caption and several pictures.

    The first of several captions or pictures is the right one.

    Attributes:
        images: The picture of the question, or the pictures to choose from.
        captions: The captions to choose from, or the caption of the question.
    """

    images: tuple[Path, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Questions of one kind.

    Attributes:
        name: Name of the probe, such as ``color swap``.
        choices: Number of answers, the same for every question.
        questions: The questions, at most one per picture so that they are independent.
        wanted: What a picture needs for a question, for the message that there are too few.
    """

    name: str
    choices: int
    questions: Sequence[Question]
    wanted: str
