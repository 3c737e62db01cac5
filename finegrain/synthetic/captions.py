"""Captions in natural language, in which colour words can be exchanged.

A caption is composed with slots such as ``{upper_color}`` in place of colour words. The swapped
caption is the same composition with two colours exchanged, so the captions differ in two words
only.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from finegrain.synthetic.person import COLOR_FIELDS, Identity, Person
from finegrain.synthetic.view import View
from finegrain.synthetic.writing import Writer

MIN_WORDS = 8
MAX_WORDS = 60
_SLOT = re.compile(r"\{(\w+)_color\}")
_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio]|umbr)")
_SECOND = ("upper_second", "lower_second")


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence and the same sentence with two colours exchanged.

    Attributes:
        swapped: None if fewer than two different garment colours are named, or if
            the caption does not name both colours of the person's swap pair.
    """

    text: str
    swapped: str | None


def words(text: str) -> list[str]:
    """Lower-case words of a caption."""
    return _WORD.findall(text.lower())


def captions_of(
    identity: Identity, view: View, picture: int, *, count: int = 2, seed: int = 0
) -> tuple[Caption, ...]:
    """Captions of ``count`` writers for one picture.

    The first caption of a person with a swap partner names both exchanged colours.
    """
    captions: list[Caption] = []
    for number in range(count):
        rng = random.Random(f"finegrain/{seed}/caption/{identity.pid}/{picture}/{number}")
        must = identity.swap if identity.swap is not None and number == 0 else ()
        while True:
            composed = Writer(identity.person, view, rng, must).compose()
            named = _SLOT.findall(composed)
            text = _fill(composed, _colors(identity.person))
            fits = MIN_WORDS <= len(words(text)) <= MAX_WORDS
            if fits and set(must) <= set(named) and all(text != c.text for c in captions):
                break
        captions.append(Caption(text, _swapped(composed, identity, named)))
    return tuple(captions)


def _colors(person: Person) -> dict[str, str]:
    colors = {slot: person.color(slot) or "" for slot in COLOR_FIELDS}
    colors["upper_second"] = person.upper_second_color or ""
    colors["lower_second"] = person.lower_second_color or ""
    return colors


def _fill(composed: str, colors: dict[str, str]) -> str:
    text = _SLOT.sub(lambda match: colors[match[1]], composed)
    return _ARTICLE.sub(r"\1n ", text)


def _swapped(composed: str, identity: Identity, named: Sequence[str]) -> str | None:
    colors = _colors(identity.person)
    pair = identity.swap if identity.swap is not None else _pair_to_swap(named, colors)
    if pair is None or not set(pair) <= set(named):
        return None
    first, second = pair
    return _fill(composed, {**colors, first: colors[second], second: colors[first]})


def _pair_to_swap(named: Sequence[str], colors: dict[str, str]) -> tuple[str, str] | None:
    """The first two garments of a caption whose colours can be exchanged."""
    slots = [slot for slot in dict.fromkeys(named) if slot not in _SECOND]
    taken = {colors[slot] for slot in _SECOND}
    for i, first in enumerate(slots):
        for second in slots[i + 1 :]:
            pair = {colors[first], colors[second]}
            if len(pair) == 2 and pair.isdisjoint(taken):
                return first, second
    return None
