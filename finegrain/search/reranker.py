"""The second stage of a search: candidates in the order of a plan's match head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from tqdm.auto import tqdm

from finegrain.encoder import Encoder
from finegrain.errors import GalleryError, PlanError, QueryError
from finegrain.gallery import Gallery, Hit, Row
from finegrain.gallery.pictures import source_of
from finegrain.gallery.sqlite.tokens import TokenFile
from finegrain.plan import MATCH, Manifest
from finegrain.records import Matched, PictureTokens, Problem
from finegrain.rerank import MATCHED_AT_ONCE, RerankBy, rerank, rerank_by_match

_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What :meth:`Searcher.prepare` did.

    Attributes:
        num_encoded: Pictures whose tokens were computed; others were there already.
        num_bytes: Size of all tokens.
        problems: Pictures that cannot be read; a search leaves them where their cosine puts them.
    """

    num_encoded: int
    num_bytes: int
    problems: list[Problem]

    def __str__(self) -> str:
        lines = [f"prepared {self.num_encoded} pictures; {self.num_bytes / 1e6:.1f} MB in all"]
        lines += [f"left out {len(self.problems)} that cannot be read:"] if self.problems else []
        return "\n  ".join(lines + [str(problem) for problem in self.problems[:10]])


def match_head(manifest: Manifest) -> Mapping[str, float]:
    """What a plan states of its re-ranker.

    Raises:
        PlanError: It has none.
    """
    if manifest.match is None:
        raise PlanError(
            f"the plan has no {MATCH}: {manifest.method!r} is searched by vectors alone. Export a "
            "method with a match head, such as RaSa or FashionBERT, or leave rerank out."
        )
    return manifest.match


def checked_depth(rerank: str | None, k: int, by: str) -> int | None:
    """How many pictures are re-ranked: ``k``, or None where nothing is.

    Raises:
        QueryError: The three do not fit together.
    """
    if rerank not in ("match", None):
        raise QueryError(f"expected rerank='match' or None, got {rerank!r}")
    if type(k) is not int or k < 1:
        raise QueryError(f"expected rerank_k as a whole number of 1 or more, got {k!r}")
    if by not in get_args(RerankBy):
        raise QueryError(f"expected rerank_by='both' or 'match', got {by!r}")
    if rerank is None and by != "both":
        raise QueryError(f"rerank_by={by!r} says how to re-rank; also set rerank='match'")
    return None if rerank is None else k


class Reranker:
    """Scores a caption with each candidate, from tokens that are kept beside the gallery.

    Tokens that are not there yet are computed from the pictures and kept, so the first queries
    of a gallery that was not prepared take longer.

    Args:
        encoder: Of a plan with a match head.
        manifest: Of that plan.
        gallery: The pictures, in a file.
        k: How many candidates of a query are looked at, at most.
        by: What orders them; see :mod:`finegrain.rerank`.

    Raises:
        GalleryError: The gallery has no file, or that of the tokens cannot be written.
    """

    def __init__(
        self,
        encoder: Encoder,
        manifest: Manifest,
        gallery: Gallery,
        *,
        k: int,
        by: RerankBy = "both",
    ) -> None:
        match = match_head(manifest)
        self.k = k
        self._by = by
        self._weight = match["weight"]
        self._encoder = encoder
        self._gallery = gallery
        if not isinstance(gallery.path, Path):
            raise GalleryError(
                f"tokens for re-ranking are kept beside a gallery's file, and {gallery.path} is an "
                "address; search it without rerank"
            )
        self._kept = TokenFile(
            Path(f"{gallery.path}.tokens"),
            fingerprint=manifest.fingerprint,
            tokens=int(match["tokens"]),
            width=int(match["width"]),
        )

    def order(self, caption: str, hits: Sequence[Hit], k: int) -> list[tuple[Hit, float | None]]:
        """Hits in their new order, each with its probability of a match where it was asked for.

        The first ``k`` are those of asking for every hit; see :mod:`finegrain.rerank`.
        """
        match = self._encoder.matching(caption)
        candidates = hits[: self.k]
        rows = {row.id: row for row in self._gallery.rows(hit.id for hit in candidates)}

        def matched(some: slice) -> Matched:
            asked = [hit.id for hit in candidates[some]]
            # A picture that cannot be read is taken for no match.
            answers = dict.fromkeys(asked, (-np.inf, -np.inf))
            for ids, tokens in self._tokens([rows[id_] for id_ in asked if id_ in rows]):
                answers |= zip(ids, zip(*match(tokens), strict=True), strict=True)
            return Matched(*np.array([answers[id_] for id_ in asked]).T)

        if self._by == "match":
            reranked = rerank_by_match(len(candidates), matched, batch=MATCHED_AT_ONCE)
        else:
            cosines = np.array([hit.score for hit in candidates])
            reranked = rerank(cosines, matched, k, weight=self._weight, batch=MATCHED_AT_ONCE)
        ordered: list[tuple[Hit, float | None]] = [
            (candidates[place], None if np.isnan(p := reranked.probability[place]) else float(p))
            for place in reranked.order
        ]
        return ordered + [(hit, None) for hit in hits[self.k :]]

    def prepare(self, *, progress: bool = True) -> Prepared:
        """Compute the tokens of all pictures that lack them, and drop those of deleted ones."""
        live = set(self._gallery)
        kept = self._kept.ids()
        self._kept.forget(kept.keys() - live)
        problems: list[Problem] = []
        num_encoded = 0
        with tqdm(total=len(live), unit=" pictures", disable=not progress) as bar:
            for rows in self._chunks(sorted(live)):
                lacking = [row for row in rows if kept.get(row.id) != row.added_at]
                bar.update(len(rows) - len(lacking))
                for ids, _ in self._computed(lacking, problems):
                    num_encoded += len(ids)
                    bar.update(len(ids))
        num_bytes = len(self._kept) * self._kept.record_bytes
        return Prepared(num_encoded=num_encoded, num_bytes=num_bytes, problems=problems)

    def close(self) -> None:
        self._kept.close()

    def _chunks(self, ids: Sequence[int]) -> Iterator[list[Row]]:
        for start in range(0, len(ids), _CHUNK_ROWS):
            yield self._gallery.rows(ids[start : start + _CHUNK_ROWS])

    def _tokens(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], PictureTokens]]:
        """Tokens with the ids that they are of: those that are kept, then those computed now."""
        ids, tokens = self._kept.read({row.id: row.added_at for row in rows})
        if ids:
            yield ids, tokens
        there = set(ids)
        yield from self._computed([row for row in rows if row.id not in there], problems=[])

    def _computed(
        self, rows: Sequence[Row], problems: list[Problem]
    ) -> Iterator[tuple[list[int], PictureTokens]]:
        """Tokens from the pictures, kept; what cannot be read goes to ``problems``."""
        sources = {row.id: self._source(row) for row in rows}
        known = [row for row in rows if sources[row.id] is not None]
        pictures = [source for source in sources.values() if source is not None]
        for batch in self._encoder.stream_images(pictures, tokens=True):
            problems += batch.problems
            if batch.tokens is None:
                continue
            done = {known[i].id: known[i].added_at for i in batch.positions}
            self._kept.add(done, batch.tokens)
            yield list(done), batch.tokens

    def _source(self, row: Row) -> Path | bytes | None:
        return source_of(row.image, lambda: self._gallery.thumbnail(row.id))
