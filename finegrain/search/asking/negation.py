"""Reads what an English query denies, such as "man in a coat without a hat, not carrying a bag".

Embeddings hardly represent negation: the query "without a bag" ranks bags high. Therefore the
denied phrases are taken out of the text and scored on their own
(:mod:`finegrain.search.asking.denial`). The grammar is small and looks at words only::

    denial  = marker list
    marker  = "without" | "lacking" | "neither" | "no" | "not" ["wearing" | "carrying" | ...]
            | ("doesn't" | "don't") ("have" | "wear" | ...) | "isn't" ["wearing" | ...]
    list    = phrase { ("or" | "nor" | "and" article | ",") phrase }
    phrase  = [article] words up to a comma, a conjunction, or a word such as "with", "in", "who"

A comma continues a list only up to an "or". After "no", the word "and" ends the list: "no hat and a
bag" asks for a bag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a query asks for and what it denies.

    Attributes:
        wanted: The text without its denied parts; the text itself if it denies nothing. Empty if it
            only denies.
        denied: The denied phrases, without articles.
    """

    wanted: str
    denied: tuple[str, ...] = ()


Reader = Callable[[str], Reading]
"""Reads the denied phrases of a text, for example in another language."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TOKEN = re.compile(r"[^\s,;.:!?()]+(?:\.\d+)*|[,;.:!?()]")
_PUNCTUATION = frozenset(",;.:!?()")
_ARTICLES = _set("a an any the some his her their its")
_ACTS = _set("wearing carrying holding having with in dressed using")
_VERBS = _set("have wear carry hold show")
_NEGATED_BE = _set("isn't isnt aren't arent")
_NEGATED_DO = _set("doesn't doesnt don't dont")
_ENDS = _set(
    "with without wearing carrying holding who whose that which in at near behind from while but "
    "standing walking running sitting is are has and or nor"
)
_BEFORE = _set(
    "with but and or who that which is are has does do he she they wearing carrying having"
)
"""Words that belong to a denial that follows them, as in "who is not wearing" or "with no"."""

_NO_DENIAL = _set(
    "only just very too so quite really doubt question one longer more matter necessarily"
)
"""Words after "no", "not" or "without" that do not name what is absent."""

_MARKERS = _set("without lacking neither no not")


class _Token(NamedTuple):
    word: str
    start: int
    end: int


def read_english(text: str) -> Reading:
    """Split an English query into what it asks for and what it denies.

    >>> read_english("man in a black jacket without a backpack, not wearing a hat")
    Reading(wanted='man in a black jacket', denied=('backpack', 'hat'))
    >>> read_english("woman with no hat or bag in a red coat")
    Reading(wanted='woman in a red coat', denied=('hat', 'bag'))
    >>> read_english("red coat")
    Reading(wanted='red coat', denied=())
    """
    tokens = [
        _Token(match[0].lower().replace("’", "'"), match.start(), match.end())
        for match in _TOKEN.finditer(text)
    ]
    denied: list[str] = []
    kept: list[str] = []
    position = kept_from = 0
    while position < len(tokens):
        first = position + _marker(tokens, position)
        phrases, after = _phrases(text, tokens, first, ends_at_and=tokens[position].word == "no")
        if first == position or not phrases:
            position += 1
            continue
        denied += phrases
        begin = position
        is_continued = tokens[position].word == "no" and _is_continued(tokens, after)
        while begin > kept_from and tokens[begin - 1].word in _BEFORE and not is_continued:
            begin -= 1  # unless "with no hat and a bag" needs its "with"
        kept.append(_between(text, tokens, kept_from, begin))
        position = kept_from = after
    if not denied:
        return Reading(wanted=text)
    kept.append(_between(text, tokens, kept_from, len(tokens)))
    return Reading(wanted=_joined(kept), denied=tuple(dict.fromkeys(denied)))


def contradictions(wanted: str, denied: Sequence[str]) -> list[str]:
    """The denied phrases that a query also asks for.

    >>> contradictions("red coat", ["coat", "blue coat"])
    ['coat']
    """
    text = f" {' '.join(_singular(wanted))} "
    return [phrase for phrase in denied if f" {' '.join(_singular(phrase))} " in text]


def _marker(tokens: Sequence[_Token], position: int) -> int:
    """Number of words of the marker that begins here; 0 if none does."""
    word = tokens[position].word
    following = _words(tokens, position + 1, 2)
    if word in _NEGATED_DO:
        return 2 if following[:1] and following[0] in _VERBS else 0
    if word in _NEGATED_BE or word == "not":
        if following[:1] and following[0] in _ACTS | _VERBS:
            return 2
    elif word not in _MARKERS:
        return 0
    if following and (following[0] in _NO_DENIAL or (word == "no" and _is_number(following))):
        return 0
    return 1


def _is_number(following: Sequence[str]) -> bool:
    """Whether the words after "no" make it short for "number", as in "no. 7"."""
    return following[0][0].isdigit() or (following[0] == "." and following[-1][0].isdigit())


def _phrases(
    text: str, tokens: Sequence[_Token], position: int, *, ends_at_and: bool
) -> tuple[list[str], int]:
    """The denied phrases that begin here, and the position after them."""
    phrases: list[str] = []
    has_article = _words(tokens, position, 1)[0] in _ARTICLES if position < len(tokens) else False
    while True:
        first, after = _phrase(tokens, position)
        if first == after:
            return phrases, position
        words = text[tokens[first].start : tokens[after - 1].end].lower()
        phrases.append(re.sub(r"(?<=\w) ones?$", "", words))
        following = _words(tokens, after, 2)
        is_joined = following[:1] == ["and"] and following[1:] in (["a"], ["an"], ["any"])
        if following[:1] in (["or"], ["nor"]) or (is_joined and not ends_at_and):
            position = after + 1
        elif _is_list(tokens, after, has_article=has_article):
            position = after + 1 + (following[1:] in (["or"], ["nor"]))
        else:
            return phrases, after


def _phrase(tokens: Sequence[_Token], position: int) -> tuple[int, int]:
    """The first word of a phrase without its articles, and the position after its last."""
    while position < len(tokens) and tokens[position].word in _ARTICLES:
        position += 1
    first = position
    while position < len(tokens) and not _ends(tokens, position):
        position += 1
    return first, position


def _is_list(tokens: Sequence[_Token], position: int, *, has_article: bool) -> bool:
    """Whether a list continues behind a comma, as in "a hat, a bag or an umbrella"."""
    if _words(tokens, position, 1) != [","]:
        return False
    if _words(tokens, position + 1, 1) in (["or"], ["nor"]):
        return True
    first, after = _phrase(tokens, position + 1)
    if first == after or (first > position + 1) != has_article:
        return False
    return _words(tokens, after, 1) in (["or"], ["nor"]) or _is_list(
        tokens, after, has_article=has_article
    )


def _is_continued(tokens: Sequence[_Token], position: int) -> bool:
    """Whether "and" and something that is asked for follow."""
    following = _words(tokens, position, 2)
    return (
        following[:1] == ["and"]
        and len(following) == 2
        and following[1] not in _BEFORE
        and not _marker(tokens, position + 1)
    )


def _words(tokens: Sequence[_Token], position: int, count: int) -> list[str]:
    return [token.word for token in tokens[position : position + count]]


def _ends(tokens: Sequence[_Token], position: int) -> bool:
    word = tokens[position].word
    return word in _PUNCTUATION or word in _ENDS or _marker(tokens, position) > 0


def _between(text: str, tokens: Sequence[_Token], first: int, last: int) -> str:
    return text[tokens[first].start : tokens[last - 1].end] if first < last else ""


def _joined(parts: Sequence[str]) -> str:
    """Join the parts of a text that remain, without conjunctions at the seams."""
    joined = ""
    for part in parts:
        trimmed = re.sub(r"^(?:[\s,;.:!?]|(?:and|but|or)\b)+|[\s,;:]+$", "", part)
        if trimmed and trimmed.lower() not in _ARTICLES | _BEFORE:
            seam = "" if not joined else " " if part[0] not in _PUNCTUATION else ", "
            joined += seam + trimmed
    return joined


def _singular(text: str) -> list[str]:
    words = re.findall(r"[^\W_]+", text.lower())
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in words]
