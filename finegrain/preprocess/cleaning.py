"""Cleans captions before they are split into tokens."""

from __future__ import annotations

import html
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import ftfy

from finegrain.errors import PlanError, QueryError, RecipeError

MAX_CHARACTERS = 10_000
"""Maximum number of characters of a caption that are read.

Repairing Unicode takes up to 3 µs per character, so the limit bounds the time of one query. The
longest context in use holds a few hundred characters of prose. The cut changes the tokens only of
a text that consists almost entirely of blanks or escapes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """Cleans a caption before it is split into tokens. The default is the cleaning of CLIP.

    A model needs the cleaning of its training, so recipes and plans state it. The steps run in the
    order of the attributes.

    Attributes:
        omit: Characters to remove. If ``omit``, ``blank`` or ``max_words`` is set, letters are
            lower-cased before these steps, too.
        blank: Characters to replace by a blank.
        max_words: Maximum number of words; None keeps all.
        repair: Repair broken Unicode with ftfy, which also straightens curly quotes, and
            resolve HTML entities twice.
        canonical: Replace underscores by blanks and remove ASCII punctuation, as SigLIP does.
        collapse: Replace each run of blanks by one, and remove blanks at both ends.
        lower: Lower-case letters.

    Raises:
        RecipeError: ``max_words`` is less than 1.

    Example:
        >>> Cleaning()("A  woman in a RED coat &amp; boots")
        'a woman in a red coat & boots'
        >>> ALBEF_CLEANING("A knee-length coat, red.")
        'a knee length coat red'
    """

    omit: str = ""
    blank: str = ""
    max_words: int | None = None
    repair: bool = True
    canonical: bool = False
    collapse: bool = True
    lower: bool = True

    def __post_init__(self) -> None:
        if self.max_words is not None and self.max_words < 1:
            raise RecipeError(f"expected max_words of 1 or more, got {self.max_words}")

    def __call__(self, caption: str) -> str:
        """Clean a caption. At most its first :data:`MAX_CHARACTERS` characters are read.

        Raises:
            QueryError: A numeric character reference has thousands of digits.
        """
        text = self.reworded(caption[:MAX_CHARACTERS])
        text = _unescaped(ftfy.fix_text(text)) if self.repair else _without_surrogates(text)
        if self.canonical:
            text = text.translate(_CANONICAL)
        if self.collapse:
            text = " ".join(text.split())
        return text.lower() if self.lower else text

    def reworded(self, caption: str) -> str:
        """Apply only ``omit``, ``blank`` and ``max_words``.

        Training that removes words at random selects them from the result.
        """
        if not (self.omit or self.blank or self.max_words):
            return caption
        table: dict[int, str | None] = {ord(character): " " for character in self.blank}
        table |= {ord(character): None for character in self.omit}
        return " ".join(caption.lower().translate(table).split()[: self.max_words])

    def stated(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as :meth:`from_dict` reads them."""
        return {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}

    @classmethod
    def from_dict(cls, stated: Mapping[str, Any]) -> Cleaning:
        """Create a cleaning from the fields in a plan.

        Raises:
            PlanError: A field is unknown, or its value is invalid.
        """
        kinds: dict[str, tuple[type, ...]] = {n: (type(v),) for n, v in _DEFAULTS.items()}
        kinds["max_words"] = (int, type(None))
        for name, value in stated.items():
            if type(value) not in kinds.get(name, ()):
                raise PlanError(
                    f"the plan states a cleaning of captions with {name}={value!r:.60}, which this "
                    f"finegrain does not know; expected {', '.join(f.name for f in fields(cls))}. "
                    "Upgrade finegrain, or export the plan again."
                )
        try:
            return cls(**stated)
        except RecipeError as error:
            raise PlanError(f"the plan states an invalid cleaning of captions: {error}") from error


_DEFAULTS = {f.name: f.default for f in fields(Cleaning)}

CLIP_CLEANING = Cleaning()
"""Cleaning of CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020), IRRA and RDE."""

TBPS_CLIP_CLEANING = Cleaning(blank='.!"()*#:;~', max_words=77)
"""Cleaning of TBPS-CLIP (Cao et al. 2024, https://arxiv.org/abs/2308.10045)."""

SIGLIP_CLEANING = Cleaning(canonical=True)
"""Cleaning of SigLIP in open_clip (Zhai et al. 2023, https://arxiv.org/abs/2303.15343)."""

HF_SIGLIP_CLEANING = Cleaning(omit=string.punctuation, repair=False)
"""Cleaning of SigLIP in Hugging Face transformers, which removes underscores as well."""

NO_CLEANING = Cleaning(repair=False, collapse=False, lower=False)
"""No cleaning, for tokenizers that do all of it themselves."""

_CANONICAL = {ord(character): None for character in string.punctuation} | {ord("_"): " "}

ALBEF_CLEANING = Cleaning(omit=",.'!?\"()*#:;~", blank="-/", max_words=50, repair=False)
"""Cleaning of ALBEF (Li et al. 2021, https://arxiv.org/abs/2107.07651), with the 50 words of RaSa
(Bai et al. 2023, https://arxiv.org/abs/2305.13653)."""


def _unescaped(text: str) -> str:
    try:
        return html.unescape(html.unescape(text))
    except ValueError as error:  # Python refuses to parse integers of over 4300 digits
        raise QueryError(
            f"expected a caption, got an endless character reference in {text!r:.60}. "
            "Remove the digits after '&#'."
        ) from error


def _without_surrogates(text: str) -> str:
    """Replace unpaired surrogates, which are not characters and which tokenizers reject."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
