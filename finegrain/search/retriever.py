"""Answers queries: retrieves the pictures nearest to a query, and re-ranks the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finegrain.encoder import Encoder
from finegrain.errors import GalleryError, QueryError
from finegrain.evaluation.background import Background
from finegrain.evaluation.match_probability import MatchProbability
from finegrain.gallery import Gallery, Hit
from finegrain.gallery.backend import Memory
from finegrain.gallery.entries import checked_cosine, checked_k, checked_offset
from finegrain.gallery.milvus import MilvusAddress
from finegrain.gallery.scoring import Linear, Scoring
from finegrain.index.gpu.index import Gpu
from finegrain.index.gpu.scans import scan_maker
from finegrain.plan import Plan
from finegrain.preprocess.vocabulary import VOCABULARY, Vocabulary
from finegrain.runtime.base import RuntimeChoice
from finegrain.search.asking.asked import Asked, checked_judged
from finegrain.search.asking.calibrating import Calibrated, JudgedQuery, calibrate
from finegrain.search.asking.probability import (
    NOT_BY_WORDS,
    NOT_CALIBRATED,
    checked_probability,
    probabilities,
    probable,
)
from finegrain.search.asking.scores import Scorer
from finegrain.search.asking.words import WordReader
from finegrain.search.explanation import CELLS, Explanation, explain
from finegrain.search.hubs import NOT_CORRECTED, Hubs
from finegrain.search.matches import Match, Matches, Refiner
from finegrain.search.queries import Query, text_notes
from finegrain.search.reranker import Reranker

VectorPlace = Literal["memory", "gpu"]
"""Where a search reads the vectors."""

DEFAULT_K = 10
_SHOWN_DAMAGED = 5


_ScoredHit = tuple[Hit, float | None]
"""A hit and its probability of a match, which is None if the re-ranker did not score it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Arguments that all queries of one call share; create one with :meth:`checked`.

    Attributes:
        k: Number of matches for each query.
        offset: Number of best matches to skip.
        where, group_by, distinct: As in :meth:`finegrain.gallery.Gallery.search`.
        min_probability: Least probability of a match; None returns all.
    """

    k: int
    offset: int
    where: str | None
    group_by: str | None
    distinct: float | None
    min_probability: float | None = None

    @classmethod
    def checked(
        cls,
        k: Any,
        *,
        offset: Any,
        where: str | None,
        group_by: str | None,
        distinct: Any,
        min_probability: Any = None,
    ) -> Request:
        """Check the arguments that do not depend on a gallery.

        Raises:
            QueryError: An argument is not a number of its range.
        """
        return cls(
            k=DEFAULT_K if k is None else checked_k(k),
            offset=checked_offset(offset),
            where=where,
            group_by=group_by,
            distinct=checked_cosine(distinct),
            min_probability=checked_probability(min_probability),
        )

    @property
    def depth(self) -> int:
        """Number of matches to retrieve, including the skipped ones."""
        return self.offset + self.k


class Retriever:
    """Searches the gallery of a plan by vectors. A new gallery is created on first use.

    Args:
        plan: A freshly opened plan; its graphs are moved into the runtime.
        gallery: Path or address, or an open gallery; by default next to the plan.
        vectors, memory, runtime, threads, trust_engines, hub_correction: As in
            :class:`~finegrain.Searcher`.

    Raises:
        QueryError: ``vectors`` is unknown.
        PlanError: The plan cannot be run, or there is no GPU to search on.
        MissingExtraError: The runtime or the GPU library is not installed.
        GalleryError: The gallery is damaged, holds vectors of another plan, or does not support
            ``vectors``.
    """

    def __init__(
        self,
        plan: Plan,
        gallery: str | Path | Gallery | None,
        *,
        vectors: VectorPlace,
        memory: Memory,
        runtime: RuntimeChoice,
        threads: int | None,
        trust_engines: bool,
        hub_correction: bool,
    ) -> None:
        if vectors not in ("memory", "gpu"):
            raise QueryError(f"expected vectors='memory' or 'gpu', got {vectors!r:.40}")
        self._memory = memory
        self._dim, self._fingerprint = plan.manifest.embed_dim, plan.manifest.fingerprint
        place = gallery_path(plan.path, gallery) if not isinstance(gallery, Gallery) else gallery
        coefficients = plan.manifest.match_probability
        self.calibration = (
            None if coefficients is None else MatchProbability.from_dict(coefficients)
        )
        self.words: WordReader | None = None
        if VOCABULARY in plan.manifest.sha256:
            self.words = WordReader(Vocabulary.from_json(plan.take(VOCABULARY)))
        self._background = Background.of_plan(plan)
        # A biased gallery is searched on the host.
        self._wants_hub_correction = hub_correction and vectors != "gpu"
        self._index: Gpu | None = None
        if vectors == "gpu":
            # Check this before building the towers, which may take minutes.
            _require_file(place)
            self._index = Gpu(scan_maker(plan, runtime, trust_engines=trust_engines))
        self.encoder = Encoder.from_plan(
            plan, runtime=runtime, threads=threads, trust_engines=trust_engines
        )
        self.opened: Gallery | None = None
        if isinstance(place, Gallery):
            self.path = place.path
            self._refuse_foreign_vectors(place)
            self.opened = place
            self.hubs  # noqa: B018 - so that added pictures get their biases
        else:
            self.path = place
            if Gallery.exists(place):
                self.made()

    @property
    def gallery(self) -> Gallery:
        """The open gallery.

        Raises:
            GalleryError: There is no gallery yet.
        """
        if self.opened is None:
            raise GalleryError(
                f"there is no gallery at {self.path} yet. Add pictures with Searcher.add(folder) "
                "or: finegrain index PLAN FOLDER"
            )
        return self.opened

    @cached_property
    def scorer(self) -> Scorer:
        """Makes the scores of queries that are more than one text or picture."""
        return Scorer(self.encoder, self.gallery)

    @cached_property
    def hubs(self) -> Hubs:
        """The hub correction of the gallery."""
        sample = self.scorer.sample
        return Hubs(self._background, self.gallery, sample, is_on=self._wants_hub_correction)

    def made(self) -> Gallery:
        """The open gallery; a missing one is created."""
        if self.opened is None:
            self.opened = Gallery(
                self.path,
                fingerprint=self._fingerprint,
                dim=self._dim,
                index=self._index,
                memory=self._memory,
                vectors_per_row=1,
            )
            self.hubs  # noqa: B018 - so that added pictures get their biases
        return self.opened

    @contextmanager
    def for_ingest(self, *, dry_run: bool) -> Iterator[Gallery]:
        """The gallery, created if needed; for a dry run an empty temporary one instead."""
        if self.opened is not None or not dry_run:
            yield self.made()
            return
        with (
            TemporaryDirectory(prefix="finegrain-") as folder,
            Gallery(Path(folder) / "g", fingerprint=self._fingerprint, dim=self._dim) as gallery,
        ):
            yield gallery

    def hits(
        self,
        queries: Sequence[Query],
        k: int,
        where: str | None,
        *,
        group_by: str | None,
        distinct: float | None,
        vectors: NDArray[np.float32] | None = None,
        biased: bool = True,
    ) -> list[list[Hit]]:
        """The ``k`` best hits of each query; see :meth:`finegrain.gallery.Gallery.search`.

        ``vectors`` are the embeddings of the queries, if they are known. ``biased`` is whether to
        add the biases of pictures.

        Raises:
            ImageError: A query picture cannot be read.
        """
        gallery = self.gallery
        is_one_text = len(queries) == 1 and isinstance(queries[0], str)
        if vectors is None and is_one_text and self._index is not None:
            tokens = self.encoder.tokenizer.encode([str(queries[0])])
            ids = np.ascontiguousarray(tokens.ids[:, : tokens.eot[0] + 1])
            hits = gallery.search_caption(
                ids, tokens.eot, k, where, group_by=group_by, distinct=distinct
            )
            if hits is not None:
                return [hits]
        vectors = self.encoded(queries) if vectors is None else vectors
        return gallery.search(
            vectors, k, where, group_by=group_by, distinct=distinct, biased=biased
        )

    def encoded(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Embeddings of texts and pictures, ``[Q, D]``."""
        vectors = np.empty((len(queries), self.encoder.embed_dim), np.float32)
        texts = {n: query for n, query in enumerate(queries) if isinstance(query, str)}
        pictures = {n: query for n, query in enumerate(queries) if not isinstance(query, str)}
        if texts:
            vectors[list(texts)] = self.encoder.encode_texts(list(texts.values()))
        if pictures:
            vectors[list(pictures)] = self.encoder.encode_images(list(pictures.values()))
        return vectors

    def calibrate(self, queries: Sequence[JudgedQuery], bank: Sequence[str] | None) -> Calibrated:
        """See :meth:`finegrain.Searcher.calibrate`."""
        calibrated = calibrate(
            self.encoder, self.scorer, queries, bank=bank, background=self._background
        )
        self.calibration, self._background = calibrated.coefficients, calibrated.background
        del self.hubs  # the next query makes it again
        return calibrated

    def close(self) -> None:
        self.encoder.close()
        if self.opened is not None:
            self.opened.close()

    def _refuse_foreign_vectors(self, gallery: Gallery) -> None:
        if gallery.vectors_per_row > 1:
            raise GalleryError(
                f"{gallery.path} holds {gallery.vectors_per_row} vectors a picture, and a searcher "
                "makes one; search it with Gallery.search"
            )
        if gallery.fingerprint != self._fingerprint:
            raise GalleryError(
                f"expected a gallery of plan {self._fingerprint[:12]}, got {gallery.path} with "
                f"vectors of plan {str(gallery.fingerprint)[:12]}, which cannot be compared. "
                "Encode its pictures again: finegrain index PLAN PICTURES --reindex"
            )


def gallery_path(plan: Path, gallery: str | Path | None) -> str | Path:
    """Location of a gallery; by default next to the plan."""
    return plan.with_suffix(".gallery") if gallery is None else gallery


def _require_file(place: str | Path | Gallery) -> None:
    """Check that a gallery is given by the path of a file, so that it can be searched on a GPU.

    Raises:
        GalleryError: The gallery is at an address, or is open already with an index of its own.
    """
    if isinstance(place, Gallery):
        raise GalleryError(
            "expected the path of a gallery to search on a GPU, got an open one, which has an "
            f"index of its own, exact or approximate. Close it and pass {str(place.path)!r}."
        )
    address = MilvusAddress.of(place)
    if address is not None:
        raise GalleryError(
            f"expected a gallery in a file to search on a GPU, got the address {address.shown}, "
            "whose server searches. Leave out vectors='gpu'."
        )


def answer(
    retriever: Retriever,
    reranker: Reranker | None,
    queries: Sequence[Asked],
    request: Request,
    *,
    attempts: int = 3,
) -> list[Matches]:
    """Search for each query and return its matches.

    Args:
        retriever: Searches by vectors.
        reranker: Reorders the first candidates of a text query; None for no re-ranking.
        queries: The queries. Those of one text or picture are searched in one batch.
        request: Arguments of all queries.
        attempts: How often to search while a writer changes or deletes pictures that were hits.

    Raises:
        QueryError: No picture has the column to group by.
        ImageError: The picture of a query cannot be read.
        FilterError: The filter does not parse or does not fit its columns.
        GalleryError: The gallery is empty.
    """
    gallery = retriever.gallery
    size = len(gallery)
    if size == 0:
        raise GalleryError(f"the gallery {gallery.path} is empty; add pictures first")
    depth = min(request.depth if reranker is None else max(request.depth, reranker.k), size)
    answers = []
    searches = _searches(retriever, queries, request, depth, size)
    for asked, search in zip(queries, searches, strict=True):
        chances = _chances(retriever, search, size) if asked.is_by_words else {}
        ordered = _reranked(reranker, asked, search.hits, request)
        matches = _matches(retriever, asked, ordered, request, search, chances)
        if len(matches) < len(ordered) and attempts > 1:  # hits were changed or deleted meanwhile
            (matches,) = answer(retriever, reranker, [asked], request, attempts=attempts - 1)
        elif request.min_probability is not None and chances:
            matches = probable(matches, request.min_probability, size)
        matches.refiner = _refiner(retriever, reranker, asked, request)
        answers.append(matches)
    return answers


def _chances(retriever: Retriever, search: _Search, size: int) -> dict[int, float]:
    """The probability of each hit of a query by words; none if the plan has no calibration."""
    hubs = retriever.hubs
    calibration = hubs.match_probability if search.corrected else retriever.calibration
    if calibration is None or search.scoring is None:
        return {}
    sample = retriever.scorer.sample.rows(size)
    biases = hubs.sampled(size) if search.corrected else None
    return probabilities(calibration, search.scoring, search.hits, sample, size, biases)


class _Search(NamedTuple):
    """What a search for one query gave.

    Attributes:
        hits: The best hits.
        scoring: The score of the query; None if its embedding is not known here.
        corrected: Whether the scores of the hits include hub correction.
        notes: Notes for the user.
    """

    hits: Sequence[Hit]
    scoring: Scoring | None
    corrected: bool
    notes: tuple[str, ...] = ()


def _searches(
    retriever: Retriever, queries: Sequence[Asked], request: Request, depth: int, size: int
) -> list[_Search]:
    """Search for each query. The plain texts share a batch, and so do the plain pictures."""
    searches: dict[int, _Search] = {}
    search: Callable[..., list[list[Hit]]]
    corrected = retriever.hubs.is_on and retriever.hubs.sampled(size) is not None
    for by_words in (True, False):
        numbers = [n for n, a in enumerate(queries) if a.is_plain and a.is_by_words == by_words]
        if not numbers:
            continue
        plain = [queries[number].source for number in numbers]
        is_known = retriever.calibration is not None or corrected
        vectors = retriever.encoded(plain) if is_known else None
        search = partial(
            retriever.hits,
            plain,
            depth,
            request.where,
            group_by=request.group_by,
            distinct=request.distinct,
            vectors=vectors,
        )
        rows, is_corrected = _corrected(retriever.hubs, search, by_words and corrected)
        for place, number in enumerate(numbers):
            scoring = None if vectors is None else Linear(vectors[place])
            searches[number] = _Search(rows[place], scoring, is_corrected)
    for number, asked in enumerate(queries):
        if not asked.is_plain:
            scored = retriever.scorer.score(asked)
            search = partial(_search_by, retriever.gallery, scored.scoring, asked, request, depth)
            wanted = corrected and not asked.pictures
            (best,), is_corrected = _corrected(retriever.hubs, search, wanted)
            searches[number] = _Search(best, scored.scoring, is_corrected, scored.notes)
    return [searches[number] for number in range(len(queries))]


def _search_by(
    gallery: Gallery, scoring: Scoring, asked: Asked, request: Request, depth: int, *, biased: bool
) -> list[list[Hit]]:
    """The best hits of one query by a score, without the pictures that it judges."""
    best = gallery.search_by(
        scoring,
        depth,
        request.where,
        without=(*asked.like, *asked.unlike),
        group_by=request.group_by,
        distinct=request.distinct,
        biased=biased,
    )
    return [best]


def _corrected(
    hubs: Hubs, search: Callable[..., list[list[Hit]]], wanted: bool
) -> tuple[list[list[Hit]], bool]:
    """The hits of queries with hub correction, or without if a hit lacks its bias.

    Args:
        hubs: The hub correction of the gallery.
        search: Searches for the queries, with or without biases.
        wanted: Whether hub correction is wanted.

    Returns:
        The hits of each query, and whether their scores include hub correction.
    """
    if wanted:
        rows = search(biased=True)
        if all(map(hubs.are_corrected, rows)):
            return rows, True
    return search(biased=not hubs.is_possible), False


def _refiner(
    retriever: Retriever, reranker: Reranker | None, asked: Asked, request: Request
) -> Refiner:
    """A function that answers the query again with more judged pictures."""

    def refined(like: Sequence[int], unlike: Sequence[int]) -> Matches:
        both = checked_judged([*asked.like, *like], [*asked.unlike, *unlike])
        again = replace(asked, like=both[0], unlike=both[1])
        return answer(retriever, reranker, [again], request)[0]

    return refined


def _reranked(
    reranker: Reranker | None, asked: Asked, hits: Sequence[Hit], request: Request
) -> list[_ScoredHit]:
    """The requested hits after re-ranking, each with its probability of a match.

    A match head reads words. It cannot read pictures and feedback, so the order then stays.
    """
    scored: list[_ScoredHit] = [(hit, None) for hit in hits]
    if reranker is not None and asked.is_by_words and hits:
        scored = reranker.order(asked.wanted, hits, request.depth)
    return scored[request.offset : request.depth]


def _matches(
    retriever: Retriever,
    asked: Asked,
    hits: Sequence[_ScoredHit],
    request: Request,
    search: _Search,
    chances: Mapping[int, float],
) -> Matches:
    explainer: Callable[[Match, int | None], Explanation] | None = None
    notes = [*asked.notes, *search.notes]
    if retriever.hubs.is_on and not (search.corrected or asked.pictures):
        notes.append(NOT_CORRECTED)
    if text := asked.wanted:
        explainer = partial(_explained, retriever.encoder, text)
        notes += text_notes(retriever.encoder.tokenizer, text)
    if request.min_probability is not None and not chances and hits:
        notes.append(NOT_CALIBRATED if retriever.calibration is None else NOT_BY_WORDS)
    if request.where is not None and len(hits) < request.k:
        notes += retriever.gallery.notes_on(request.where)
    if damaged := sorted(retriever.gallery.damaged()):
        shown = ", ".join(map(str, damaged[:_SHOWN_DAMAGED]))
        notes.append(
            f"left out as damaged: {len(damaged)} of the gallery's pictures, such as {shown}; "
            "index them again, or restore it from a backup; finegrain gallery check names them"
        )
    return Matches(
        asked.label,
        list(_rows(retriever.gallery, hits, chances, explainer, request)),
        notes=notes,
        read=asked.read,
    )


def _explained(encoder: Encoder, text: str, match: Match, cells: int | None) -> Explanation:
    return explain(encoder, text, match.open(), cells=CELLS if cells is None else cells)


def _rows(
    gallery: Gallery,
    hits: Sequence[_ScoredHit],
    chances: Mapping[int, float],
    explainer: Callable[[Match, int | None], Explanation] | None,
    request: Request,
) -> Iterator[Match]:
    """The matches of hits, without pictures that were deleted or changed since the search."""
    ids = [hit.id for hit, _ in hits]
    rows = {row.id: row for row in gallery.rows(ids, request.where)}
    thumbnails = gallery.thumbnails(rows)
    existing = ((hit, match) for hit, match in hits if hit.id in rows)
    for rank, (hit, match) in enumerate(existing, start=request.offset + 1):
        row = rows[hit.id]
        yield Match(
            rank=rank,
            score=hit.score,
            match=match,
            probability=chances.get(hit.id),
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
