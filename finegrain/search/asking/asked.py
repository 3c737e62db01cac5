"""One query: words, pictures or both, with denied words and judged pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finegrain.errors import QueryError
from finegrain.preprocess import ImageSource
from finegrain.search.queries import Query, check_query


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query with everything that belongs to it alone.

    Attributes:
        text: The words; None for a query by pictures alone.
        pictures: The pictures; empty for a query by words alone.
        like, unlike: Ids of pictures that were judged right or wrong.
    """

    text: str | None = None
    pictures: tuple[ImageSource, ...] = ()
    like: tuple[int, ...] = ()
    unlike: tuple[int, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether one encoded text or picture answers the query."""
        is_one = len(self.pictures) + (self.text is not None) == 1
        return is_one and not (self.like or self.unlike)

    @property
    def source(self) -> Query:
        """The text or the picture of a plain query."""
        return self.pictures[0] if self.text is None else self.text

    @property
    def label(self) -> str:
        """The query as a line of text."""
        if self.text is not None:
            return self.text
        return "<picture>" if len(self.pictures) == 1 else f"<{len(self.pictures)} pictures>"


def asked_all(queries: Sequence[Query]) -> list[Asked]:
    """Check several texts and pictures, each of which is a query.

    Raises:
        QueryError: A query is invalid; the message says which.
    """
    for number, query in enumerate(queries, start=1):
        check_query(query, place=f"query {number} of {len(queries)}" if len(queries) > 1 else "")
    return [_of(query) for query in queries]


def asked_one(
    query: Query | None,
    *,
    images: Sequence[ImageSource] | None = None,
    like: Sequence[int] = (),
    unlike: Sequence[int] = (),
) -> Asked:
    """Check the arguments of one query; see :meth:`finegrain.Searcher.query`.

    Raises:
        QueryError: The query is invalid or missing, or arguments do not fit together.
    """
    liked, disliked = checked_judged(like, unlike)
    if images is None:
        check_query(query)
        assert query is not None
        return replace(_of(query), like=liked, unlike=disliked)
    if query is not None:
        raise QueryError("expected a query or images, got both. Search with one of them.")
    return Asked(pictures=checked_pictures(images), like=liked, unlike=disliked)


def _of(query: Query) -> Asked:
    return Asked(text=query) if isinstance(query, str) else Asked(pictures=(query,))


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
