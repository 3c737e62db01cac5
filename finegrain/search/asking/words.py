"""Reads the words of a query that a model does not know as words that it knows.

A text tower trained from random weights knows only the words of its captions; to it, "man with a
brolly" is a man with anything. In this order, an unknown word is read as

1. a plain word for the same thing (:mod:`finegrain.data.everyday_words`), also for names of up to
   three words;
2. its singular or plural;
3. the known word with the most similar spelling, unless English has the word: at most one letter
   wrong, missing or exchanged in words of three letters or more, and two in words of eight.

What remains is reported as unread. Only the second step applies to a model whose captions are not
English.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from finegrain.data.everyday_words import IGNORED, READ_AS, with_articles
from finegrain.preprocess.vocabulary import WORD, Vocabulary, words_of

if TYPE_CHECKING:
    from symspellpy import SymSpell

_LONGEST = 3
"""Largest number of words of a name."""

_ENGLISH_SHARE = 0.5
_FEWEST_LETTERS, _MANY_LETTERS = 3, 8
_DICTIONARY = "frequency_dictionary_en_82_765.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsRead:
    """How the words of a text were read.

    Attributes:
        text: The text to encode.
        changed: Words that were read as others, as ``{"jumper": "sweater"}``.
        unread: Words that the model does not know, in lower case.
        is_known: Whether the model knows a word that says something.
    """

    text: str
    changed: Mapping[str, str]
    unread: tuple[str, ...]
    is_known: bool

    @property
    def notes(self) -> list[str]:
        """Notes for the user; none if all words are known."""
        notes = []
        if self.changed:
            changes = ", ".join(f"{word!r} as {plain!r}" for word, plain in self.changed.items())
            notes.append(f"read {changes} (words=False, or --no-words)")
        if self.unread:
            effect = (
                "so the other words decide"
                if self.is_known
                else "and knows no other word here, so the order of the matches says nothing"
            )
            words = ", ".join(map(repr, self.unread))
            notes.append(f"the model never read {words} in its training, {effect}")
        return notes


class WordReader:
    """Reads texts with the words that a model knows.

    Args:
        vocabulary: The words of the training captions.

    Example:
        >>> words = {"a": 9, "in": 9, "man": 9, "sweater": 5, "orange": 2}
        >>> reader = WordReader(Vocabulary(words=words, tokens=()))
        >>> reader.read("bloke in a tangerine jumpr").text
        'man in an orange sweater'
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._words = vocabulary.words

    def knows(self, text: str) -> bool:
        """Whether the model knows all words of a text."""
        return all(map(self._knows, words_of(text)))

    def read(self, text: str) -> WordsRead:
        """Read a text."""
        words = list(WORD.finditer(text))
        changed: dict[str, str] = {}
        unread: dict[str, None] = {}
        is_known = False
        read, end = "", 0
        while words:
            names = list(_names(text, words))
            name, plain = next(self._plain(names), (names[-1], None))
            count = len(names) - names.index(name)
            first, last = words[0], words[count - 1]
            words = words[count:]
            if plain is None and name not in IGNORED:
                unread[name] = None
            elif plain is not None and plain != name:
                changed[name] = plain
            is_known |= plain is not None and name not in IGNORED
            typed = text[first.start() : last.end()]
            read += text[end : first.start()] + (typed if plain in (None, name) else plain)
            end = last.end()
        read += text[end:]
        return WordsRead(
            text=with_articles(read) if changed else text,
            changed=changed,
            unread=tuple(unread),
            is_known=is_known,
        )

    def _plain(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Names that begin at a word, the longest first, with what to read them as."""
        *longer, word = names
        for name in longer:
            if not all(map(self._knows, name.split())) and (plain := self._named(name)):
                yield name, plain
        if self._knows(word):
            yield word, word
        elif plain := (
            self._named(word)
            or self._form(word)
            or self._named(*_forms(word))
            or self._spelled(word)
        ):
            yield word, plain

    def _knows(self, word: str) -> bool:
        """Whether the captions had a word, or all of the words that hyphens join in it."""
        word = re.sub("['’]s$", "", word)
        return word in self._words or (
            "-" in word and all(part in self._words for part in word.split("-"))
        )

    def _form(self, word: str) -> str | None:
        """The singular or plural of a word, if it is known."""
        return next(filter(self._knows, _forms(word)), None)

    def _named(self, *names: str) -> str | None:
        """The first known plain word for one of the names."""
        if self._is_english:
            for plain in chain.from_iterable(READ_AS.get(name, ()) for name in names):
                if all(map(self._knows, plain.split())):
                    return plain
        return None

    def _spelled(self, word: str) -> str | None:
        """What a misspelled word is read as."""
        if not self._is_english or len(word) < _FEWEST_LETTERS or word in _english():
            return None
        from symspellpy import Verbosity

        distance = 1 if len(word) < _MANY_LETTERS else 2
        for similar in self._spelling.lookup(word, Verbosity.CLOSEST, distance):
            plain: str | None = similar.term
            if plain not in self._words:
                plain = self._named(similar.term)
            if plain is not None:
                return plain
        return None

    @cached_property
    def _is_english(self) -> bool:
        known = sum(word in _english() for word in self._words)
        return known > _ENGLISH_SHARE * len(self._words)

    @cached_property
    def _spelling(self) -> SymSpell:
        """Finds known words and names by a spelling that is nearly right."""
        from symspellpy import SymSpell  # its import takes longer than a query

        spelling = SymSpell(max_dictionary_edit_distance=2)
        single = (name for name in READ_AS if " " not in name)
        for word, count in {**dict.fromkeys(single, 1), **self._words}.items():
            spelling.create_dictionary_entry(word, count)
        return spelling


def _names(text: str, words: Sequence[re.Match[str]]) -> Iterator[str]:
    """The names of one to three words that begin with the first word, the longest first."""
    for count in range(min(_LONGEST, len(words)), 0, -1):
        gaps = [text[word.end() : after.start()] for word, after in pairwise(words[:count])]
        if all(gap.isspace() for gap in gaps):
            yield " ".join(word[0].lower() for word in words[:count])


def _forms(word: str) -> Iterator[str]:
    """Possible singulars and plurals of an English noun."""
    if word.endswith("ies"):
        yield f"{word[:-3]}y"
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]
    yield f"{word}s"


@cache
def _english() -> frozenset[str]:
    """The words of English."""
    file = importlib.resources.files("symspellpy") / _DICTIONARY
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    return frozenset(line.partition(" ")[0] for line in lines)
