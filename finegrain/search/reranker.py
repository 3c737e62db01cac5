"""Re-ranks the candidates of a search with the match head of a plan."""

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
from finegrain.gallery.pictures import lacks_file
from finegrain.gallery.sqlite.tokens import TokenFile
from finegrain.plan import MATCH, Manifest
from finegrain.records import Matched, PictureTokens, Problem
from finegrain.rerank import MATCHED_AT_ONCE, RerankBy, rerank, rerank_by_match

_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Result of :meth:`Searcher.prepare`.

    Attributes:
        num_encoded: Number of pictures whose tokens this call computed.
        num_bytes: Size of the tokens of all pictures, in bytes.
        problems: Pictures that cannot be read. Re-ranking treats them as no match.
    """

    num_encoded: int
    num_bytes: int
    problems: list[Problem]

    def __str__(self) -> str:
        lines = [f"prepared {self.num_encoded} pictures; {self.num_bytes / 1e6:.1f} MB in total"]
        lines += [f"left out {len(self.problems)} that cannot be read:"] if self.problems else []
        return "\n  ".join(lines + [str(problem) for problem in self.problems[:10]])


def match_head(manifest: Manifest) -> Mapping[str, float]:
    """Settings of the re-ranker of a plan: ``tokens``, ``width`` and ``weight``.

    Raises:
        PlanError: The plan has no re-ranker.
    """
    if manifest.match is None:
        raise PlanError(
            f"the plan has no {MATCH}: the method {manifest.method!r} has no match head. Export a "
            "method with one, such as RaSa or FashionBERT, or leave out rerank."
        )
    return manifest.match


def checked_depth(rerank: str | None, k: int, by: str) -> int | None:
    """Check the arguments of re-ranking; returns ``k``, or None without re-ranking.

    Raises:
        QueryError: An argument is invalid, or the arguments do not fit together.
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
    """Re-ranks candidates from picture tokens, which are stored in a file next to the gallery.

    Missing tokens are computed from the pictures and stored. So the first queries of a gallery
    take longer, unless :meth:`prepare` was called.

    Args:
        encoder: Encoder of a plan with a match head.
        manifest: Manifest of that plan.
        gallery: A gallery in a file.
        k: Maximum number of candidates to re-rank for each query.
        by: The order; see :mod:`finegrain.rerank`.

    Raises:
        GalleryError: The gallery is not a file, or the file of the tokens cannot be written.
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
                f"expected a gallery in a file, which stores tokens for re-ranking next to it, got "
                f"the address {gallery.path}. Search it without rerank."
            )
        self._token_file = TokenFile(
            Path(f"{gallery.path}.tokens"),
            fingerprint=manifest.fingerprint,
            tokens=int(match["tokens"]),
            width=int(match["width"]),
        )

    def order(self, caption: str, hits: Sequence[Hit], k: int) -> list[tuple[Hit, float | None]]:
        """Order hits, and add the probability of a match to each hit that was scored.

        The first ``k`` are the same as if every hit was scored; see :mod:`finegrain.rerank`.

        Returns:
            Pairs of a hit and its probability, which is None for a hit that was not scored.
        """
        match = self._encoder.matching(caption)
        candidates = hits[: self.k]
        rows = {row.id: row for row in self._gallery.rows(hit.id for hit in candidates)}

        def matched(part: slice) -> Matched:
            part_ids = [hit.id for hit in candidates[part]]
            # A picture that cannot be read counts as no match.
            outputs = dict.fromkeys(part_ids, (-np.inf, -np.inf))
            for ids, tokens in self._tokens([rows[id_] for id_ in part_ids if id_ in rows]):
                outputs |= zip(ids, zip(*match(tokens), strict=True), strict=True)
            return Matched(*np.array([outputs[id_] for id_ in part_ids]).T)

        if self._by == "match":
            reranked = rerank_by_match(len(candidates), matched, batch=MATCHED_AT_ONCE)
        else:
            cosines = np.array([hit.score for hit in candidates])
            reranked = rerank(cosines, matched, k, weight=self._weight, batch=MATCHED_AT_ONCE)
        ordered: list[tuple[Hit, float | None]] = [
            (candidates[i], None if np.isnan(p := reranked.probability[i]) else float(p))
            for i in reranked.order
        ]
        return ordered + [(hit, None) for hit in hits[self.k :]]

    def prepare(self, *, progress: bool = True) -> Prepared:
        """Compute the missing tokens of all pictures, and remove the tokens of deleted pictures."""
        picture_ids = set(self._gallery)
        stored = self._token_file.ids()
        self._token_file.forget(stored.keys() - picture_ids)
        problems: list[Problem] = []
        num_encoded = 0
        with tqdm(total=len(picture_ids), unit=" pictures", disable=not progress) as bar:
            for rows in self._chunks(sorted(picture_ids)):
                missing = [row for row in rows if stored.get(row.id) != row.added_at]
                bar.update(len(rows) - len(missing))
                for ids, _ in self._computed(missing, problems):
                    num_encoded += len(ids)
                    bar.update(len(ids))
        num_bytes = len(self._token_file) * self._token_file.record_bytes
        return Prepared(num_encoded=num_encoded, num_bytes=num_bytes, problems=problems)

    def close(self) -> None:
        self._token_file.close()

    def _chunks(self, ids: Sequence[int]) -> Iterator[list[Row]]:
        for start in range(0, len(ids), _CHUNK_ROWS):
            yield self._gallery.rows(ids[start : start + _CHUNK_ROWS])

    def _tokens(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], PictureTokens]]:
        """Ids and tokens of pictures: first the stored ones, then those computed now."""
        ids, tokens = self._token_file.read({row.id: row.added_at for row in rows})
        if ids:
            yield ids, tokens
        stored = set(ids)
        yield from self._computed([row for row in rows if row.id not in stored], problems=[])

    def _computed(
        self, rows: Sequence[Row], problems: list[Problem]
    ) -> Iterator[tuple[list[int], PictureTokens]]:
        """Compute and store the tokens of pictures; unreadable ones are added to ``problems``."""
        sources = self._sources(rows)
        rows_with_source = [row for row in rows if row.id in sources]
        pictures = [sources[row.id] for row in rows_with_source]
        for batch in self._encoder.stream_images(pictures, tokens=True):
            problems += batch.problems
            if batch.tokens is None:
                continue
            encoded = [rows_with_source[i] for i in batch.positions]
            self._token_file.add({row.id: row.added_at for row in encoded}, batch.tokens)
            yield [row.id for row in encoded], batch.tokens

    def _sources(self, rows: Sequence[Row]) -> dict[int, Path | bytes]:
        """Where to read the pictures, by id; all thumbnails are read in one call."""
        thumbnails = self._gallery.thumbnails(row.id for row in rows if lacks_file(row.image))
        sources: dict[int, Path | bytes] = {
            row.id: Path(row.image) for row in rows if row.image is not None
        }
        return sources | thumbnails
