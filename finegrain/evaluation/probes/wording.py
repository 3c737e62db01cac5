"""Finding the things and colours that captions name, and exchanging words."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

from finegrain.data.lexicon import COLORS, OTHER_THINGS, THINGS

_SHADES = ("light", "dark", "bright", "pale", "deep")
_AND = re.compile(r"\s*(?:,|/|&|-|(?:,\s*)?(?:and|or|with)\s)\s*", re.IGNORECASE)
_ADJECTIVES = re.compile(r"\s+(?:[\w'-]+\s+){0,3}")
_WORD = re.compile(r"[\w'-]+")
_ARTICLE = re.compile(r"\ba(n?)\s+$", re.IGNORECASE)
_NO_ADJECTIVES = {"and", "or", "with", "in", "on", "over", "under", "of", "is", "are", "the", "a"}


class Span(NamedTuple):
    """Characters ``start`` to ``end`` of a caption, and their text in lower case."""

    start: int
    end: int
    text: str


class ColorMention(NamedTuple):
    """A colour that a caption names.

    Attributes:
        span: The colour with its shade, such as "dark blue".
        color: The family of the colour in the lexicon.
        thing: The family of the noun that follows. None where no noun follows.
    """

    span: Span
    color: str
    thing: str | None


def pattern_of(words: Collection[str]) -> re.Pattern[str]:
    """A pattern for any of the words as a whole: it finds "shirt", but not inside "t-shirt"."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])", re.I)


def find_words(caption: str, words: re.Pattern[str]) -> list[Span]:
    return [Span(m.start(), m.end(), m[0].lower()) for m in words.finditer(caption)]


def normalised(text: str) -> str:
    """The words in lower case, with one space between them and at both ends."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def exchanged(caption: str, changes: Sequence[tuple[Span, str]]) -> str:
    """The caption with some words replaced. Capital letters and articles are adapted.

    A wrong article would show the change to a model that reads the text alone.
    """
    parts, done = [], 0
    for span, words in sorted(changes):
        before = caption[done : span.start]
        article = _ARTICLE.search(before)
        if article is not None:
            before = f"{before[: article.start() + 1]}{_n(words)} "
        capital = caption[span.start].isupper()
        parts += [before, words[0].upper() + words[1:] if capital else words]
        done = span.end
    return "".join([*parts, caption[done:]])


def with_article(thing: str) -> str:
    """The thing with its article: ``a red coat``, ``an orange coat``, ``blue jeans``."""
    plural = thing.endswith("s") and not thing.endswith("ss")
    return thing if plural or thing.endswith(" hair") else f"a{_n(thing)} {thing}"


def thing_after(caption: str, span: Span) -> Span | None:
    """The noun that an adjective describes, or None where no noun follows closely."""
    match = _nouns().search(caption, span.end)
    if match is None:
        return None
    between = caption[span.end : match.start()]
    if not _ADJECTIVES.fullmatch(between) or _NO_ADJECTIVES & set(between.lower().split()):
        return None
    return Span(match.start(), match.end(), match[0].lower())


def family_after(caption: str, span: Span) -> str | None:
    """The family of the noun that :func:`thing_after` returns."""
    thing = thing_after(caption, span)
    return None if thing is None else _family_of_thing()[thing.text]


def alike(word: str, other: str) -> bool:
    """Whether both can describe one thing: "shirt" and "t-shirt", or "coat" and "long coat"."""
    of_things, of_colors = _family_of_thing(), _family_of_color()
    return (
        (word in of_things and of_things[word] == of_things.get(other))
        or (word in of_colors and of_colors[word] == of_colors.get(other))
        or not set(word.split()).isdisjoint(other.split())
    )


def colors_of(caption: str) -> list[ColorMention]:
    """Colours that stand alone in a caption, unlike those of "red and black striped".

    Joined colours are left out: exchanging two colours of one thing changes nothing.
    """
    spans = [Span(m.start(), m.end(), m[0].lower()) for m in _colors().finditer(caption)]
    between = (caption[left.end : right.start] for left, right in pairwise(spans))
    joined = [False, *(_AND.fullmatch(text) is not None for text in between), False]
    mentions = []
    for number, span in enumerate(spans):
        if not (joined[number] or joined[number + 1]):
            color = _family_of_color()[_WORD.findall(span.text)[-1]]
            mentions.append(ColorMention(span, color, family_after(caption, span)))
    return mentions


def _n(words: str) -> str:
    return "n" if words[0] in "aeio" or words.startswith("umbr") else ""


@functools.cache
def _family_of_color() -> dict[str, str]:
    words = {word: family for family, group in COLORS.items() for word in group}
    # A hyphen may join the shade to the colour; both are then one word.
    return words | {f"{s}-{w}": family for s in _SHADES for w, family in words.items()}


@functools.cache
def _family_of_thing() -> dict[str, str]:
    kinds = (*THINGS.values(), OTHER_THINGS)
    return {word: family for kind in kinds for family, group in kind.items() for word in group}


@functools.cache
def _colors() -> re.Pattern[str]:
    colors = "|".join(word for group in COLORS.values() for word in group)
    return re.compile(
        rf"(?<![\w-])(?:(?:{'|'.join(_SHADES)})[\s-]+)?(?:{colors})(?![\w-])", re.IGNORECASE
    )


@functools.cache
def _nouns() -> re.Pattern[str]:
    return pattern_of(_family_of_thing())
