"""Vectors in half precision, and a bound on what that changes about their scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.index.estimate import Query, Vectors, longest_of

Halves = npt.NDArray[np.float16]

_SLICE_ROWS = 16_384  # converted together: 32 MiB in float32 at width 512


@dataclass(frozen=True, slots=True)
class Halving:
    """What vectors lost when they were rounded to fp16.

    Attributes:
        moved: No vector moved by more (L2).
        longest: No vector is longer, before or after.
    """

    moved: float
    longest: float

    def joined(self, other: Halving) -> Halving:
        """The bounds for the vectors of both."""
        return Halving(max(self.moved, other.moved), max(self.longest, other.longest))

    def error(self, query: Query, sent: npt.NDArray[np.floating]) -> float:
        """No estimate is further than this from ``query.scores / query.length``.

        With the direction ``u`` of a query, its rounded form ``u'``, a vector ``v`` and its
        rounded form ``v'``, ``|u·v - u'·v'| <= |u||v - v'| + |u - u'||v'|``. The sum is rounded
        as :meth:`Query.rounding` says.
        """
        turned = float(np.linalg.norm(query.direction - sent.astype(np.float64)))
        return self.moved + turned * self.longest + query.rounding(self.longest)


def halve(vectors: Vectors) -> tuple[Halves, Halving]:
    """Vectors ``[N, D]`` in fp16, and what that cost.

    Raises:
        GalleryError: A number is beyond fp16.
    """
    halves = np.empty(vectors.shape, np.float16)
    moved = longest = 0.0
    for start in range(0, len(vectors), _SLICE_ROWS):
        some = vectors[start : start + _SLICE_ROWS]
        with np.errstate(over="ignore"):  # the next lines look for it
            rounded = some.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise GalleryError(
                "expected vectors of unit length, got a number beyond fp16, which ends at 65504; "
                "search them with the gallery's own index"
            )
        halves[start : start + _SLICE_ROWS] = rounded
        moved = max(moved, longest_of(some - rounded.astype(np.float32)))
        longest = max(longest, longest_of(some))
    return halves, Halving(moved, longest + moved)
