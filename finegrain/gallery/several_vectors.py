"""Several vectors of one picture, such as those of the frames of a track.

The ``K`` vectors of a picture are stored one after the other, as one row of width ``K D``. The
score of a picture is the highest inner product of its vectors. The exact index reads them so.

For an index that knows only rows, a query ``q`` becomes ``K`` queries, ``(q, 0, ...)``,
``(0, q, 0, ...)`` and so on, whose inner products with the row are those of the ``K`` vectors. The
``k`` best pictures are among the ``k`` best of the ``K`` queries.

Stored vectors are divided by a power of two, at least the root of ``K``, and queries multiplied by
it, which rounds nothing. So no stored vector is longer than 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError, QueryError
from finegrain.gallery.backend import Search
from finegrain.gallery.entries import checked_vectors, stored_scale
from finegrain.index.exact import Hit, Vectors


@dataclass(frozen=True, slots=True)
class SeveralVectors:
    """How a gallery stores and searches the vectors of a picture.

    Attributes:
        count: Most vectors of a picture, ``K``.
        dim: Width of each, ``D``.
    """

    count: int
    dim: int

    def checked(self, vectors: npt.ArrayLike) -> Vectors:
        """Vectors in the form in which they are stored, ``[N, K D]``.

        Args:
            vectors: One vector for each picture, ``[N, D]``, or 1 to ``K``, as ``N`` arrays
                ``[n, D]``. The first is repeated for missing ones, which does not change the
                highest score.

        Raises:
            GalleryError: A shape is wrong, or the vectors are not numeric or not L2-normalised.
        """
        if self.count == 1:
            return checked_vectors(vectors, self.dim)
        rows = [self._filled(row, number) for number, row in enumerate(_each(vectors))]
        flat = np.concatenate([np.empty((0, self.dim), np.float32), *rows])
        wide = checked_vectors(flat, self.dim).reshape(len(rows), self.count * self.dim)
        return wide / np.float32(stored_scale(self.count))

    def _filled(self, row: npt.ArrayLike, number: int) -> npt.NDArray[np.generic]:
        vectors = np.atleast_2d(np.asarray(row))
        if vectors.ndim != 2 or vectors.shape[1] != self.dim or not 1 <= len(vectors) <= self.count:
            raise GalleryError(
                f"A picture has 1 to {self.count} vectors of width {self.dim}; got shape "
                f"{list(vectors.shape)} for picture {number}."
            )
        missing = np.repeat(vectors[:1], self.count - len(vectors), axis=0)
        return np.concatenate([vectors, missing])

    def restored(self, stored: Vectors) -> Vectors:
        """The vectors of a picture as they were added; ``[D]``, or ``[K, D]`` for several."""
        if self.count == 1:
            return stored
        return stored.reshape(self.count, self.dim) * np.float32(stored_scale(self.count))

    def scaled(self, queries: Vectors) -> Vectors:
        """Queries ``[Q, D]`` whose inner products with stored vectors are those of the vectors.

        Raises:
            QueryError: A number is too large for float32.
        """
        with np.errstate(over="ignore"):
            scaled = queries * np.float32(stored_scale(self.count))
        if not np.isfinite(scaled).all():
            raise QueryError(
                "A query vector holds numbers near the limit of float32; normalise it."
            )
        return scaled

    def expanded(self, queries: Vectors) -> Vectors:
        """Queries ``[Q, D]`` for each vector of a picture, ``[Q K, K D]``.

        Raises:
            QueryError: A number is too large for float32.
        """
        if self.count == 1:
            return queries
        scaled = self.scaled(queries)
        wide = np.zeros((len(queries), self.count, self.count, self.dim), np.float32)
        for place in range(self.count):
            wide[:, place, place] = scaled
        return wide.reshape(len(queries) * self.count, self.count * self.dim)

    def searching(self, search: Search) -> Search:
        """A search for queries ``[Q, D]``, from one for rows."""

        def best(queries: Vectors, k: int) -> list[list[Hit]]:
            hits = search(self.expanded(queries), k)
            starts = range(0, len(hits), self.count)
            return [_merged(hits[start : start + self.count], k) for start in starts]

        return best


def _merged(several: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """The ``k`` best pictures of several searches, each with its highest score."""
    scores: dict[int, float] = {}
    for hit in (hit for hits in several for hit in hits):
        scores[hit.id] = max(hit.score, scores.get(hit.id, hit.score))
    ranked = sorted((-score, id_) for id_, score in scores.items())
    return [Hit(id_, -score) for score, id_ in ranked[:k]]


def _each(vectors: npt.ArrayLike) -> list[npt.ArrayLike]:
    try:
        return list(vectors)  # type: ignore[arg-type]
    except TypeError as error:
        raise GalleryError(
            f"Vectors are an array or a list of arrays; got {vectors!r:.60}"
        ) from error
