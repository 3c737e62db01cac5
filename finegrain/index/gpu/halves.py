"""Vectors in half precision, and a bound on the resulting error of scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.index.estimate import Query, Vectors, longest_of

Halves = npt.NDArray[np.float16]

_SLICE_ROWS = 16_384  # rows converted at once: 32 MiB in float32 at width 512


@dataclass(frozen=True, slots=True)
class Halving:
    """Bounds on the effect of rounding vectors to fp16.

    Attributes:
        moved: Upper bound on the L2 distance of a vector from its rounded form.
        longest: Upper bound on the L2 norm of a vector and of its rounded form.
    """

    moved: float
    longest: float

    def joined(self, other: Halving) -> Halving:
        """Bounds that hold for the vectors of both."""
        return Halving(max(self.moved, other.moved), max(self.longest, other.longest))

    def error(self, query: Query, sent: npt.NDArray[np.floating]) -> float:
        """Upper bound on the distance of an estimate from ``query.scores / query.length``.

        With the direction ``u`` of a query, its rounded form ``u'``, a vector ``v`` and its
        rounded form ``v'``, ``|u·v - u'·v'| <= |u||v - v'| + |u - u'||v'|``. The sum is rounded
        as :meth:`Query.rounding` says.
        """
        query_moved = float(np.linalg.norm(query.direction - sent.astype(np.float64)))
        return self.moved + query_moved * self.longest + query.rounding(self.longest)


def halve(vectors: Vectors) -> tuple[Halves, Halving]:
    """Round vectors ``[N, D]`` to fp16; return them with bounds on the rounding.

    Raises:
        GalleryError: A number is outside the range of fp16.
    """
    halves = np.empty(vectors.shape, np.float16)
    moved = longest = 0.0
    for start in range(0, len(vectors), _SLICE_ROWS):
        chunk = vectors[start : start + _SLICE_ROWS]
        with np.errstate(over="ignore"):  # overflow is checked below
            rounded = chunk.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise GalleryError(
                "expected vectors of unit length, got a number beyond fp16, which ends at 65504; "
                "search them with the gallery's own index"
            )
        halves[start : start + _SLICE_ROWS] = rounded
        moved = max(moved, longest_of(chunk - rounded.astype(np.float32)))
        longest = max(longest, longest_of(chunk))
    return halves, Halving(moved, longest + moved)
