"""One query: words, pictures or both, with denied words and judged pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finegrain.errors import QueryError
from finegrain.preprocess import ImageSource
from finegrain.search.asking.composition import WEIGHT, change_of, changes_nothing
from finegrain.search.asking.negation import Reader, Reading, contradictions, read_english
from finegrain.search.asking.words import WordReader, WordsRead
from finegrain.search.queries import Query, check_query


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query with everything that belongs to it alone.

    Attributes:
        text: The words as they were typed; None for a query by pictures alone.
        wanted: The words to encode: without denied parts, and empty if they change nothing.
        denied: Phrases for what must not be there.
        pictures: The pictures; empty for a query by words alone.
        weight: Weight of the words beside pictures, from 0 to 1.
        like, unlike: Ids of pictures that were judged right or wrong.
        read: How the words of ``wanted`` and of each denied phrase were read; empty if they were
            taken as they are.
    """

    text: str | None = None
    wanted: str = ""
    denied: tuple[str, ...] = ()
    pictures: tuple[ImageSource, ...] = ()
    weight: float = WEIGHT
    like: tuple[int, ...] = ()
    unlike: tuple[int, ...] = ()
    read: tuple[WordsRead, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether one encoded text or picture answers the query."""
        is_one = len(self.pictures) + bool(self.wanted) == 1
        return is_one and not (self.denied or self.has_feedback)

    @property
    def has_feedback(self) -> bool:
        return bool(self.like or self.unlike)

    @property
    def source(self) -> Query:
        """The text or the picture of a plain query."""
        return self.pictures[0] if self.pictures else self.wanted

    @property
    def is_by_words(self) -> bool:
        """Whether words alone decide."""
        return not (self.pictures or self.has_feedback)

    @property
    def notes(self) -> list[str]:
        """How words were read, if not as they are."""
        notes = [note for read in self.read for note in read.notes]
        if self.pictures and self.text is not None and not (self.wanted or self.denied):
            notes.append(f"{self.text!r:.80} changes nothing, so the picture alone was searched")
        if self.denied:
            denied = ", ".join(repr(phrase) for phrase in self.denied)
            wanted = repr(self.wanted) if self.wanted else "the picture"
            notes.append(f"read as: {wanted} without {denied} (negation=False, or --no-negation)")
        for phrase in contradictions(self.wanted, self.denied):
            notes.append(f"the query asks for {phrase!r} and denies it, so no picture fits well")
        return notes

    def with_words_of(self, reader: WordReader) -> Asked:
        """The same query in words that a model knows."""
        wanted, denied = reader.read(self.wanted), [reader.read(text) for text in self.denied]
        return replace(
            self,
            wanted=wanted.text,
            denied=tuple(read.text for read in denied),
            read=(wanted, *denied),
        )

    @property
    def label(self) -> str:
        """The query as a line of text."""
        words = "" if self.text is None else self.text
        if not self.pictures:
            return words
        number = len(self.pictures)
        pictures = "<picture>" if number == 1 else f"<{number} pictures>"
        return f"{pictures} {words}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """How the texts of one call are read; create one with :meth:`checked`.

    Attributes:
        avoid: Denied phrases of all texts.
        read: Reads denied phrases in a text; None reads none.
    """

    avoid: tuple[str, ...]
    read: Reader | None

    @classmethod
    def checked(cls, avoid: Any, negation: Any) -> Denial:
        """Check the arguments ``avoid`` and ``negation`` of a query.

        Raises:
            QueryError: One of them is invalid.
        """
        if not (isinstance(negation, bool) or callable(negation)):
            raise QueryError(
                f"expected negation as True, False or a function of a text, got {negation!r:.40}"
            )
        phrases = [avoid] if isinstance(avoid, str) else avoid
        if not isinstance(phrases, list | tuple) or not all(isinstance(p, str) for p in phrases):
            raise QueryError(f"expected avoid as a text or a list of texts, got {avoid!r:.40}")
        for phrase in phrases:
            check_query(phrase, place="avoid")
        read = read_english if negation is True else negation or None
        return cls(avoid=tuple(phrases), read=read)

    def of(self, query: Query, *, place: str = "") -> Asked:
        """A text or a picture as a query.

        Raises:
            QueryError: The query is invalid, or only denies.
        """
        check_query(query, place=place)
        if not isinstance(query, str):
            self.refuse_without_words()
            return Asked(pictures=(query,))
        reading = self._reading(query)
        if not reading.wanted:
            phrases = ", ".join(repr(phrase) for phrase in reading.denied)
            raise QueryError(
                f"{place}{': ' if place else ''}{query!r:.80} only says what must not be there "
                f"({phrases}). Also say what to look for, as in 'person {query:.40}'; or pass "
                "negation=False (--no-negation) to search for the words as they are."
            )
        return Asked(text=query, wanted=reading.wanted, denied=reading.denied)

    def beside(self, pictures: tuple[ImageSource, ...], text: str, weight: float) -> Asked:
        """Pictures with words that change them.

        Raises:
            QueryError: The text is invalid.
        """
        check_query(text, place="text")
        reading = self._reading(text)
        wanted = "" if changes_nothing(reading.wanted) else change_of(reading.wanted)
        return Asked(
            text=text, wanted=wanted, denied=reading.denied, pictures=pictures, weight=weight
        )

    def _reading(self, text: str) -> Reading:
        reading = Reading(wanted=text) if self.read is None else self.read(text)
        return replace(reading, denied=tuple(dict.fromkeys((*reading.denied, *self.avoid))))

    def refuse_without_words(self) -> None:
        """Raise an error if there are phrases to avoid; a query by pictures has no words."""
        if self.avoid:
            raise QueryError(
                "avoid takes words away from words, and a picture has none. Search by a text, or "
                "pass the ids of wrong pictures as unlike."
            )


def asked_all(queries: Sequence[Query], denial: Denial) -> list[Asked]:
    """Check several texts and pictures, each of which is a query.

    Raises:
        QueryError: A query is invalid; the message says which.
    """
    return [
        denial.of(query, place=f"query {number} of {len(queries)}" if len(queries) > 1 else "")
        for number, query in enumerate(queries, start=1)
    ]


def asked_one(
    query: Query | None,
    denial: Denial,
    *,
    images: Sequence[ImageSource] | None = None,
    image: ImageSource | None = None,
    text: str | None = None,
    weight: float | None = None,
    like: Sequence[int] = (),
    unlike: Sequence[int] = (),
) -> Asked:
    """Check the arguments of one query; see :meth:`finegrain.Searcher.query`.

    Raises:
        QueryError: The query is invalid or missing, or arguments do not fit together.
    """
    liked, disliked = checked_judged(like, unlike)
    if image is not None and images is not None:
        raise QueryError("expected image or images, got both. Put all pictures into images.")
    if images is None and image is None:
        if text is not None or weight is not None:
            raise QueryError("text and weight belong to image or images; search by query(text)")
        check_query(query)
        assert query is not None
        return replace(denial.of(query), like=liked, unlike=disliked)
    if query is not None:
        raise QueryError(
            "expected a query or pictures, got both. Words beside a picture are text: "
            "query(image=crop, text='but in a blue jacket')"
        )
    pictures = checked_pictures([image] if images is None else images)
    if text is None:
        denial.refuse_without_words()
        if weight is not None:
            raise QueryError("weight is that of words; also pass text")
        asked = Asked(pictures=pictures)
    else:
        asked = denial.beside(pictures, text, _checked_weight(weight))
    return replace(asked, like=liked, unlike=disliked)


def _checked_weight(weight: Any) -> float:
    if weight is None:
        return WEIGHT
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight <= 1:
        raise QueryError(
            f"expected weight as a number from 0 (the picture alone) to 1 (the words alone), got "
            f"{weight!r:.40}"
        )
    return float(weight)


def checked_pictures(images: Any) -> tuple[ImageSource, ...]:
    """The pictures of one query.

    Raises:
        QueryError: There is none, or one is not a picture.
    """
    if not isinstance(images, list | tuple) or not images:
        raise QueryError(
            f"expected images as a list of one or more pictures, got {images!r:.60}. For one "
            "picture, pass it alone: query(Path('crop.jpg'))"
        )
    for number, picture in enumerate(images, start=1):
        if isinstance(picture, str):
            raise QueryError(
                f"images: picture {number} of {len(images)} is a text, {picture!r:.60}; pass paths "
                "as pathlib.Path"
            )
        check_query(picture, place=f"images: picture {number} of {len(images)}")
    return tuple(images)


def checked_judged(like: Iterable[Any], unlike: Iterable[Any]) -> tuple[tuple[int, ...], ...]:
    """Ids of pictures that were judged right and wrong, without repetitions.

    Raises:
        QueryError: An id is not a positive integer, or a picture is judged both right and wrong.
    """
    both = []
    for name, ids in (("like", like), ("unlike", unlike)):
        ids = list(ids)
        wrong = [id_ for id_ in ids if type(id_) is not int or id_ < 1]
        if wrong:
            raise QueryError(f"expected {name} as ids of pictures, got {wrong[0]!r:.40} in it")
        both.append(tuple(dict.fromkeys(ids)))
    if contradictions := set(both[0]) & set(both[1]):
        raise QueryError(f"picture {min(contradictions)} is in both like and unlike; judge it once")
    return tuple(both)
