"""How a caption is cleaned before it is split into tokens."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import ftfy

from finegrain.errors import PlanError, QueryError, RecipeError

MAX_CHARACTERS = 10_000
"""Where a caption is cut before it is cleaned.

Repairing Unicode costs up to 3 µs a character, and nobody may buy a second of our time
with one query. The longest context in use holds a few hundred characters of prose, so
only a text that is nearly all blanks or escapes can notice the cut.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """What is done to a caption before it is split into tokens; the default is CLIP's cleaning.

    Models read captions as their training cleaned them, so a recipe states the cleaning of its
    method, and a plan that of its model. The steps are done in the order of the attributes;
    blanks are collapsed and letters are lower-cased at the end.

    Attributes:
        omit: Characters that are left out. Where this, ``blank`` or ``max_words`` is given,
            letters are lower-cased before it too.
        blank: Characters that become a blank.
        max_words: How many words are kept; None keeps all.
        repair: Repair broken Unicode with ftfy, which also straightens curly quotes, and
            resolve HTML entities twice.

    Raises:
        RecipeError: ``max_words`` is less than 1.
    """

    omit: str = ""
    blank: str = ""
    max_words: int | None = None
    repair: bool = True

    def __post_init__(self) -> None:
        if self.max_words is not None and self.max_words < 1:
            raise RecipeError(f"expected max_words of 1 or more, got {self.max_words}")

    def __call__(self, caption: str) -> str:
        """Clean one caption, of which at most :data:`MAX_CHARACTERS` are read.

        Raises:
            QueryError: A numeric character reference has thousands of digits.
        """
        text = self.reworded(caption[:MAX_CHARACTERS])
        text = _unescaped(ftfy.fix_text(text)) if self.repair else _without_surrogates(text)
        return " ".join(text.split()).lower()

    def reworded(self, caption: str) -> str:
        """The caption after ``omit``, ``blank`` and ``max_words``: what words are drawn from.

        Training that leaves out words counts these words.
        """
        if not (self.omit or self.blank or self.max_words):
            return caption
        table: dict[int, str | None] = {ord(character): " " for character in self.blank}
        table |= {ord(character): None for character in self.omit}
        return " ".join(caption.lower().translate(table).split()[: self.max_words])

    def stated(self) -> dict[str, Any]:
        """The fields that are not CLIP's, which :meth:`from_dict` reads."""
        return {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}

    @classmethod
    def from_dict(cls, stated: Mapping[str, Any]) -> Cleaning:
        """Read what a plan states.

        Raises:
            PlanError: A field is unknown, or its value is of another type.
        """
        kinds = {"omit": (str,), "blank": (str,), "max_words": (int, type(None)), "repair": (bool,)}
        for name, value in stated.items():
            if type(value) not in kinds.get(name, ()):
                raise PlanError(
                    f"the plan states a cleaning of captions with {name}={value!r:.60}, which this "
                    f"finegrain does not know; it knows {', '.join(f.name for f in fields(cls))}. "
                    "Upgrade finegrain, or export the plan again."
                )
        try:
            return cls(**stated)
        except RecipeError as error:
            raise PlanError(f"the plan states an invalid cleaning of captions: {error}") from error


_DEFAULTS = {f.name: f.default for f in fields(Cleaning)}

CLIP_CLEANING = Cleaning()
"""CLIP's, and that of IRRA and RDE (Radford et al. 2021)."""

TBPS_CLIP_CLEANING = Cleaning(blank='.!"()*#:;~', max_words=77)
"""That of TBPS-CLIP (Cao et al. 2024), whose tokenizer is CLIP's."""

ALBEF_CLEANING = Cleaning(omit=",.'!?\"()*#:;~", blank="-/", max_words=50, repair=False)
"""That of ALBEF (Li et al. 2021) with the fifty words that RaSa (Bai et al. 2023) keeps."""


def _unescaped(text: str) -> str:
    try:
        return html.unescape(html.unescape(text))
    except ValueError as error:  # Python refuses to parse integers of over 4300 digits
        raise QueryError(
            f"expected a caption, got an endless character reference in {text!r:.60}. "
            "Remove the digits after '&#'."
        ) from error


def _without_surrogates(text: str) -> str:
    """A half of a pair of surrogates is no character, and no tokenizer takes it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
