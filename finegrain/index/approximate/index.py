"""Approximate inner-product search over the vectors of a gallery."""

from __future__ import annotations

import copy
import warnings
from heapq import merge
from itertools import islice

import numpy as np

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.index.approximate.code_file import CodesInvalidError
from finegrain.index.approximate.keeping import CodeKeeper, Kept, discard, keep, opened
from finegrain.index.approximate.kinds import Approximate
from finegrain.index.approximate.trained import Trained
from finegrain.index.approximate.truth import everything, exact_best, fetched
from finegrain.index.backend import Truth
from finegrain.index.biases import Biases
from finegrain.index.estimate import Ids, Query, Vectors
from finegrain.index.exact import Hit, VectorIndex

TAIL_ROWS = 65_536
"""Number of newest rows that are searched exactly."""

DEEPEST = 4096
"""For more hits than this the search is exact; most rows would be candidates anyway."""

_OUTGROWN = 4  # train again once there are this many times as many rows
_QUERIES_AT_ONCE = 16


class ApproximateIndex:
    """Approximate search with short codes in memory and the vectors in the gallery's file.

    A search takes candidates from a trained FAISS index
    (:mod:`~finegrain.index.approximate.kinds`), reads their vectors and ranks them by exact
    scores. It may miss a picture, but never ranks one wrongly. The newest rows are in a tail,
    which is searched exactly, so new pictures are visible at once; a small gallery is only a
    tail. A full tail is added to the trained index. The index is trained again if the gallery has
    grown to four times its size at training, or has lost half of its rows. Training and coding
    take minutes for millions of rows, at the first search and rarely afterwards.

    Candidates are taken without regard to biases; their scores and order include them.

    The codes are kept in a file next to the gallery, if the truth has a place for one
    (:class:`~finegrain.index.approximate.keeping.CodeKeeper`), and :meth:`open_kept` opens them.
    Rows of the tail are coded when it is full, so they are in no file.

    Searches take no lock, like those of :class:`~finegrain.index.exact.VectorIndex`.

    Args:
        truth: Source of the vectors, the gallery's file.
        kind: Kind of index, and the effort of a search.
    """

    def __init__(self, truth: Truth, kind: Approximate) -> None:
        self.kind = kind
        self.truth = truth
        self.biases = Biases()
        # Both are replaced together, so that a search sees each row in exactly one of them.
        self._parts: tuple[Trained | None, VectorIndex] = (None, VectorIndex(truth.dim))
        self._kept: Kept | None = None

    def open_kept(self) -> None:
        """Take the rows whose codes are kept next to the gallery; this index is empty before."""
        if not isinstance(self.truth, CodeKeeper):
            return
        try:
            stored = opened(self.truth, self.kind)
        except (CodesInvalidError, OSError) as error:
            _warn(f"{error}. The codes are made again from the vectors.")
            return
        if stored is not None:
            trained, self._kept = stored
            self._parts = (trained, VectorIndex(self.truth.dim, self.biases))

    @property
    def ids(self) -> Ids:
        """Ids in the index, ascending, ``[N]``."""
        trained, tail = self._parts
        return tail.ids if trained is None else np.concatenate([trained.live_ids, tail.ids])

    @property
    def last_id(self) -> int:
        """The highest id that was added; rows with higher ids are new."""
        trained, tail = self._parts
        return tail.last_id or (int(trained.ids[-1]) if trained else 0)

    @property
    def is_exact(self) -> bool:
        """Whether all rows are in the tail."""
        return self._parts[0] is None

    def at(self, kind: Approximate) -> ApproximateIndex:
        """A view of the present rows with another effort of the same kind."""
        view = copy.copy(self)
        view.kind = kind
        return view

    def __len__(self) -> int:
        trained, tail = self._parts
        return len(tail) + (trained.num_alive if trained else 0)

    def memory(self) -> dict[str, int]:
        """Bytes in memory by part; see :class:`~finegrain.index.backend.MeasuredIndex`."""
        trained, tail = self._parts
        sizes = tail.memory()
        if trained is not None:
            sizes["ids"] = sizes.get("ids", 0) + trained.ids.nbytes + trained.alive.nbytes
            sizes["codes"] = sizes.get("codes", 0) + trained.num_code_bytes()
        return sizes

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Append vectors ``[N, D]`` under ascending ids greater than all before them.

        If that fills the tail, all further rows of the gallery's file may be read as well.
        """
        trained, tail = self._parts
        tail.add(ids, vectors)
        if len(tail) < TAIL_ROWS:
            return
        if trained is None or len(self) > _OUTGROWN * trained.rows_then:
            self._rebuild()
        else:
            more = trained.with_rows(tail.chunks())
            self._parts = (more, VectorIndex(self.truth.dim, self.biases))
            self._keep()

    def remove(self, ids: Ids) -> None:
        """Remove the rows with these ids; ids that are not in the index are ignored."""
        trained, tail = self._parts
        tail.remove(ids)
        if trained is None:
            return
        trained = trained.without(ids)
        self._parts = (trained, tail)
        if 2 * trained.num_alive < len(trained.ids):
            self._rebuild()

    def set_biases(self, ids: Ids, values: Vectors) -> None:
        """See :class:`~finegrain.index.backend.BiasedIndex`."""
        self.biases = self.biases.changed(ids, values)
        self._parts[1].set_biases(ids, values)

    def _rebuild(self) -> None:
        tail = VectorIndex(self.truth.dim, self.biases)
        trained = None
        if len(self.truth.ids()) >= TAIL_ROWS:
            trained = Trained.over(self.truth, self.kind)
        else:
            for ids, vectors in everything(self.truth):
                tail.add(ids, vectors)
        self._parts = (trained, tail)
        self._kept = None
        self._keep()

    def _keep(self) -> None:
        """Write the codes to their file, which then holds no others."""
        keeper, (trained, _) = self.truth, self._parts
        if not isinstance(keeper, CodeKeeper) or keeper.read_only:
            return
        try:
            if trained is None:
                discard(keeper)
            else:
                self._kept = keep(keeper, self.kind, trained, self._kept)
        except (GalleryError, OSError) as error:
            self._kept = None
            _warn(f"{keeper.codes_path} is not written: {error}. The next opening codes again.")

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        """About the ``k`` best rows of each query, best first; equal scores by ascending id.

        A query has fewer than ``k`` hits only if the gallery or the filter has fewer rows.

        Args:
            queries: Queries ``[Q, D]``.
            k: Number of hits per query.
            allowed: If set, search only these ids, ascending. If they are few, the search is
                exact.
        """
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            hits += self._search(queries[start : start + _QUERIES_AT_ONCE], k, allowed)
        return hits

    def close(self) -> None:
        """Free nothing; all memory is freed with the object."""

    def _search(self, queries: Vectors, k: int, allowed: Ids | None) -> list[list[Hit]]:
        trained, tail = self._parts
        if trained is None:
            return tail.search(queries, k, allowed)
        prepared = [Query(vector.astype(np.float64)) for vector in queries]
        if k > DEEPEST or (allowed is not None and self._are_few(allowed)):
            return self._exact(prepared, k, allowed)
        searched = trained.num_alive + len(tail) if allowed is None else len(allowed)
        num_expected = min(k, searched)
        candidates = trained.candidates(self.kind, queries, k, allowed)
        newest = tail.search(queries, k, allowed)
        answers = []
        for query, ids, new in zip(prepared, candidates, newest, strict=True):
            (old,) = exact_best(fetched(self.truth, ids), [query], k, self.biases)
            best = list(islice(merge(old, new, key=_rank), k))
            # If the index returns too few rows, read all vectors.
            answers.append(
                best if len(best) >= num_expected else self._exact([query], k, allowed)[0]
            )
        return answers

    def _are_few(self, allowed: Ids) -> bool:
        share = len(allowed) / max(1, len(self))
        return len(allowed) <= self.kind.gathered_rows(share)

    def _exact(self, queries: list[Query], k: int, allowed: Ids | None) -> list[list[Hit]]:
        chunks = everything(self.truth) if allowed is None else fetched(self.truth, allowed)
        return exact_best(chunks, queries, k, self.biases)


def _warn(text: str) -> None:
    warnings.warn(text, GalleryWarning, stacklevel=4)


def _rank(hit: Hit) -> tuple[float, int]:
    return -hit.score, hit.id
