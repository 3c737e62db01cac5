"""What captions and columns state about each identity, and which attributes they name."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finegrain.data.lexicon import SAID_OF_THINGS, THINGS, Families
from finegrain.evaluation.probes.wording import (
    Span,
    alike,
    family_after,
    find_words,
    normalised,
    pattern_of,
)
from finegrain.records import Pid, Sample

MAX_VALUES = 64
_VALUE = re.compile(r"[^\W\d_][\w'-]*(?: [\w'-]+){0,2}")
"""A value of a column that a caption may contain: up to three words."""


class IdentityTexts:
    """All texts about each identity. They show whether a changed caption is wrong for it.

    The captions of all its pictures count, and so do the texts in its columns.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        texts: dict[Pid | None, list[str]] = defaultdict(list)
        for sample in samples:
            columns = (value for value in sample.metadata.values() if isinstance(value, str))
            texts[sample.pid] += [normalised(text) for text in (*sample.captions, *columns)]
        self._texts = {pid: "\n".join(dict.fromkeys(lines)) for pid, lines in texts.items()}

    def has_text(self, pid: Pid | None, caption: str) -> bool:
        """Whether this text is a caption or a column of the identity."""
        return normalised(caption) in self._texts[pid].split("\n")

    def has_word(self, pid: Pid | None, words: Sequence[str]) -> bool:
        """Whether a text of the identity has one of these words, in singular or plural."""
        text = self._texts[pid]
        return any(f" {word}{end} " in text for word in words for end in ("", "s", "es"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """An attribute with one of several values, such as a pattern.

    Attributes:
        name: A kind of the lexicon, or a column.
        values: Value to the words for it.
        counts: How often the captions use each pair of a word and the thing it describes. The
            thing is None for nouns, and where no noun follows.
        words: A pattern that matches all words.
        column: Whether samples state their value in a column of that name.
        noun: Whether the words name things rather than describe them.
    """

    name: str
    values: Families
    counts: Mapping[tuple[str, str | None], int]
    words: re.Pattern[str]
    column: bool
    noun: bool

    def named_in(self, caption: str, sample: Sample) -> list[tuple[Span, str]]:
        """Where a caption names a value, and which. A column counts only its sample's value."""
        value_of = {word: value for value, words in self.values.items() for word in words}
        named = [(span, value_of[span.text]) for span in find_words(caption, self.words)]
        if not self.column:
            return named
        own = str(sample.metadata.get(self.name)).lower()
        return [(span, value) for span, value in named if value == own]

    def others(
        self, caption: str, span: Span, value: str, pid: Pid | None, texts: IdentityTexts
    ) -> dict[str, int]:
        """Words for values that the identity does not have, and how often captions use each.

        Captions must use the word for the same kind of thing somewhere: a model could reject
        "leather jeans" without the picture. Each value is named by its most frequent word.
        """
        thing = self.thing_of(caption, span)
        counts = {}
        for other, words in self.values.items():
            word = max(words, key=lambda w: self.counts.get((w, thing), 0))
            count = self.counts.get((word, thing), 0)
            wrong = other != value and not alike(word, span.text) and not texts.has_word(pid, words)
            if count and wrong:
                counts[word] = count
        return counts

    def thing_of(self, caption: str, span: Span) -> str | None:
        return None if self.noun else family_after(caption, span)


def attributes_of(samples: Sequence[Sample]) -> list[Attribute]:
    """Attributes of the lexicon, and columns whose values captions may name."""
    captions = [caption for sample in samples for caption in sample.captions]
    kinds = [(name, values, False, False) for name, values in SAID_OF_THINGS.items()]
    kinds += [(name, values, False, True) for name, values in THINGS.items()]
    columns = columns_of_attributes(samples)
    kinds = [kind for kind in kinds if kind[0] not in columns]
    kinds += [(name, values, True, False) for name, values in columns.items()]
    attributes = []
    for name, values, column, noun in kinds:
        words = pattern_of([word for group in values.values() for word in group])
        counts = Counter(
            (span.text, None if noun else family_after(caption, span))
            for caption in captions
            for span in find_words(caption, words)
        )
        attributes.append(
            Attribute(
                name=name, values=values, counts=counts, words=words, column=column, noun=noun
            )
        )
    return attributes


def columns_of_attributes(samples: Sequence[Sample]) -> dict[str, Families]:
    """Columns with a few texts that repeat, unlike names and numbers."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        for name, value in sample.metadata.items():
            if isinstance(value, str):
                seen[name][value.lower()] += 1
    return {
        name: {value: (value,) for value in sorted(values)}
        for name, values in seen.items()
        if 2 <= len(values) <= min(MAX_VALUES, values.total() // 2)
        and all(_VALUE.fullmatch(value) for value in values)
    }
