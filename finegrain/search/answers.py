"""From queries to matches: their arguments, both stages of the search, and what to say of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery, Hit
from finegrain.gallery.entries import checked_k, checked_offset
from finegrain.gallery.grouping import checked_cosine
from finegrain.gallery.pictures import SUFFIXES
from finegrain.preprocess import ImageSource, Tokenizer
from finegrain.search.explanation import Explanation, explain
from finegrain.search.matches import Match, Matches
from finegrain.search.reranker import Reranker
from finegrain.search.retriever import FirstStage, check_query

DEFAULT_K = 10

Query = str | ImageSource
_Found = tuple[Hit, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of all queries of one call; :meth:`checked` makes one.

    Attributes:
        k: How many matches of each.
        offset: How many of the best are left out.
        where, group_by, distinct: As of :meth:`finegrain.gallery.Gallery.search`.
    """

    k: int
    offset: int
    where: str | None
    group_by: str | None
    distinct: float | None

    @classmethod
    def checked(
        cls, k: Any, *, offset: Any, where: str | None, group_by: str | None, distinct: Any
    ) -> Request:
        """Check what does not depend on a gallery.

        Raises:
            QueryError: ``k``, ``offset`` or ``distinct`` is no number of its range.
        """
        return cls(
            k=DEFAULT_K if k is None else checked_k(k),
            offset=checked_offset(offset),
            where=where,
            group_by=group_by,
            distinct=checked_cosine(distinct),
        )

    @property
    def depth(self) -> int:
        return self.offset + self.k


def answer(
    stage: FirstStage, reranker: Reranker | None, queries: Sequence[Query], request: Request
) -> list[Matches]:
    """The matches of each query.

    Args:
        stage: Searches by vectors.
        reranker: Puts the first candidates of a text query in order, or None.
        queries: Texts and pictures.
        request: What is asked.

    Raises:
        QueryError: A query cannot be searched for, or no picture has the column to group by.
        ImageError: The picture of a query cannot be read.
        FilterError: The filter does not parse or does not fit its columns.
        GalleryError: The gallery is empty.
    """
    for query in queries:
        check_query(query)
    gallery = stage.gallery
    size = len(gallery)
    if size == 0:
        raise GalleryError(f"the gallery {gallery.path} is empty; add pictures first")
    looked_at = request.depth if reranker is None else max(request.depth, reranker.k)
    answers = stage.hits(
        queries,
        min(looked_at, size),
        request.where,
        group_by=request.group_by,
        distinct=request.distinct,
    )
    return [
        _matches(stage, query, _ordered(reranker, query, hits, request), request)
        for query, hits in zip(queries, answers, strict=True)
    ]


def _ordered(
    reranker: Reranker | None, query: Query, hits: Sequence[Hit], request: Request
) -> list[_Found]:
    """Hits after both stages, each with its probability of a match where it was asked for."""
    found: list[_Found] = [(hit, None) for hit in hits]
    if reranker is not None and isinstance(query, str) and hits:
        found = reranker.order(query, hits, request.depth)
    return found[request.offset : request.depth]


def _matches(stage: FirstStage, query: Query, found: Sequence[_Found], request: Request) -> Matches:
    explainer: Callable[[Match], Explanation] | None = None
    notes: list[str] = []
    if isinstance(query, str):
        text = query
        explainer = lambda match: explain(stage.encoder, text, match.open())  # noqa: E731
        notes += text_notes(stage.encoder.tokenizer, text)
    if request.where is not None and len(found) < request.k:
        notes += stage.gallery.notes_on(request.where)
    return Matches(
        query if isinstance(query, str) else "<picture>",
        list(_rows(stage.gallery, found, explainer, first_rank=request.offset + 1)),
        notes=notes,
    )


def _rows(
    gallery: Gallery,
    found: Sequence[_Found],
    explainer: Callable[[Match], Explanation] | None,
    *,
    first_rank: int,
) -> Iterator[Match]:
    ids = [hit.id for hit, _ in found]
    rows = {row.id: row for row in gallery.rows(ids)}
    thumbnails = gallery.thumbnails(ids)
    there = ((hit, match) for hit, match in found if hit.id in rows)
    for rank, (hit, match) in enumerate(there, start=first_rank):
        row = rows[hit.id]
        yield Match(
            rank=rank,
            score=hit.score,
            match=match,
            explainer=explainer,
            id=hit.id,
            image=row.image,
            pid=row.pid,
            camera=row.camera,
            time=row.time,
            track=row.track,
            metadata=row.metadata,
            thumbnail=thumbnails.get(hit.id),
        )


def text_notes(tokenizer: Tokenizer, text: str) -> list[str]:
    """What to know of a text query: words that the model does not read, or a path."""
    notes = []
    if looks_like_a_picture(text):
        advice = "search by the picture with pathlib.Path(...), or --image"
        there = "" if isfile(text) else ", which does not exist"
        notes.append(f"{text!r:.80} looks like the path of a picture{there}; {advice}")
    if cut := tokenizer.beyond_context(text):
        words = len(cut.split())
        notes.append(
            f"the model reads {tokenizer.context_length} tokens of a text; "
            f"the last {words} words were not read: {_ends(cut)!r}"
        )
    return notes


def _ends(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:75]} … {text[-75:]}"


def looks_like_a_picture(text: str) -> bool:
    """Whether a text ends as file names of pictures do, and is one word or a path."""
    path = Path(text.strip())
    is_name = len(text.split()) == 1 or len(path.parts) > 1 or isfile(path)
    return is_name and path.suffix.lower() in SUFFIXES and "\0" not in text
