"""Answers queries: checks their arguments, retrieves, re-ranks, and adds notes for the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery, Hit
from finegrain.gallery.entries import checked_cosine, checked_k, checked_offset
from finegrain.preprocess import ImageSource, Tokenizer
from finegrain.search.explanation import Explanation, explain
from finegrain.search.matches import Match, Matches
from finegrain.search.reranker import Reranker
from finegrain.search.retriever import Retriever, check_query
from finegrain.search.typed_paths import path_note

DEFAULT_K = 10
_SHOWN_DAMAGED = 5

Query = str | ImageSource
_ScoredHit = tuple[Hit, float | None]
"""A hit and its probability of a match, which is None if the re-ranker did not score it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Arguments that all queries of one call share; create one with :meth:`checked`.

    Attributes:
        k: Number of matches for each query.
        offset: Number of best matches to skip.
        where, group_by, distinct: As in :meth:`finegrain.gallery.Gallery.search`.
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
        """Check the arguments that do not depend on a gallery.

        Raises:
            QueryError: ``k``, ``offset`` or ``distinct`` is not a number of its range.
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
        """Number of matches to retrieve, including the skipped ones."""
        return self.offset + self.k


def answer(
    retriever: Retriever, reranker: Reranker | None, queries: Sequence[Query], request: Request
) -> list[Matches]:
    """Search for each query and return its matches.

    Args:
        retriever: Searches by vectors.
        reranker: Reorders the first candidates of a text query; None for no re-ranking.
        queries: Texts and pictures.
        request: Arguments of all queries.

    Raises:
        QueryError: A query is invalid, or no picture has the column to group by.
        ImageError: The picture of a query cannot be read.
        FilterError: The filter does not parse or does not fit its columns.
        GalleryError: The gallery is empty.
    """
    for number, query in enumerate(queries, start=1):
        check_query(query, place=f"query {number} of {len(queries)}" if len(queries) > 1 else "")
    gallery = retriever.gallery
    size = len(gallery)
    if size == 0:
        raise GalleryError(f"the gallery {gallery.path} is empty; add pictures first")
    depth = request.depth if reranker is None else max(request.depth, reranker.k)
    hits_by_query = retriever.hits(
        queries,
        min(depth, size),
        request.where,
        group_by=request.group_by,
        distinct=request.distinct,
    )
    return [
        _matches(retriever, query, _reranked(reranker, query, hits, request), request)
        for query, hits in zip(queries, hits_by_query, strict=True)
    ]


def _reranked(
    reranker: Reranker | None, query: Query, hits: Sequence[Hit], request: Request
) -> list[_ScoredHit]:
    """The requested hits after re-ranking, each with its probability of a match."""
    scored: list[_ScoredHit] = [(hit, None) for hit in hits]
    if reranker is not None and isinstance(query, str) and hits:
        scored = reranker.order(query, hits, request.depth)
    return scored[request.offset : request.depth]


def _matches(
    retriever: Retriever, query: Query, hits: Sequence[_ScoredHit], request: Request
) -> Matches:
    explainer: Callable[[Match], Explanation] | None = None
    notes: list[str] = []
    if isinstance(query, str):
        text = query
        explainer = lambda match: explain(retriever.encoder, text, match.open())  # noqa: E731
        notes += text_notes(retriever.encoder.tokenizer, text)
    if request.where is not None and len(hits) < request.k:
        notes += retriever.gallery.notes_on(request.where)
    if damaged := sorted(retriever.gallery.damaged()):
        shown = ", ".join(map(str, damaged[:_SHOWN_DAMAGED]))
        notes.append(
            f"left out as damaged: {len(damaged)} of the gallery's pictures, such as {shown}; "
            "restore it from a backup, or index them again"
        )
    return Matches(
        query if isinstance(query, str) else "<picture>",
        list(_rows(retriever.gallery, hits, explainer, first_rank=request.offset + 1)),
        notes=notes,
    )


def _rows(
    gallery: Gallery,
    hits: Sequence[_ScoredHit],
    explainer: Callable[[Match], Explanation] | None,
    *,
    first_rank: int,
) -> Iterator[Match]:
    ids = [hit.id for hit, _ in hits]
    rows = {row.id: row for row in gallery.rows(ids)}
    thumbnails = gallery.thumbnails(ids)
    # A picture may have been deleted since the search.
    existing = ((hit, match) for hit, match in hits if hit.id in rows)
    for rank, (hit, match) in enumerate(existing, start=first_rank):
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
    """Notes on a text query: words that the model does not read, or a text that is a path."""
    note = path_note(text)
    notes = [] if note is None else [note]
    if unread := tokenizer.beyond_context(text):
        num_words = len(unread.split())
        words = "word was" if num_words == 1 else f"{num_words} words were"
        notes.append(
            f"the model reads {tokenizer.context_length} tokens of a text; "
            f"the last {words} not read: {_shortened(unread)!r}"
        )
    return notes


def _shortened(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:75]} … {text[-75:]}"
