"""Codes of rows that have several vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finegrain.index.codes import Asked, Codes, Encoded
from finegrain.index.estimate import Pool, Rows, Vectors


def split(encoded: Encoded, count: int) -> list[Encoded]:
    """The codes of each of the ``count`` vectors that a row holds one after the other.

    The bounds of a row also hold for a part of it.
    """
    grid = encoded.grid
    parts = zip(
        np.split(grid.middle, count),
        np.split(grid.step, count),
        np.split(encoded.levels, count, axis=1),
        strict=True,
    )
    return [
        Encoded(grid._replace(middle=middle, step=step), levels) for middle, step, levels in parts
    ]


class SeveralCodes:
    """The codes of ``K`` vectors a row. A row has the highest product of its vectors.

    Each row that is among the ``k`` best has its highest product in some place. There it is among
    the ``k`` best of that place, since no row scores less than its product in any place. So the
    ``k`` best of each place hold all that are needed, with the estimate of their highest product.

    Args:
        places: The codes of the first vectors of all rows, those of the second ones, and so on.
    """

    def __init__(self, places: Sequence[Codes]) -> None:
        self.places = tuple(places)

    @property
    def num_bytes(self) -> int:
        """See :class:`~finegrain.index.codes.Codes`."""
        return sum(codes.num_bytes for codes in self.places)

    def best(self, asked: Sequence[Asked], biases: Vectors | None = None) -> list[Pool | None]:
        """See :class:`~finegrain.index.codes.Codes`."""
        by_place = [codes.best(asked, biases) for codes in self.places]
        return [_united(pools) for pools in zip(*by_place, strict=True)]

    def for_biases(self) -> SeveralCodes | None:
        """See :class:`~finegrain.index.codes.Codes`."""
        return _complete([codes.for_biases() for codes in self.places])

    def without(self, rows: Rows) -> SeveralCodes | None:
        """See :class:`~finegrain.index.codes.Codes`."""
        return _complete([codes.without(rows) for codes in self.places])


def _complete(places: Sequence[Codes | None]) -> SeveralCodes | None:
    complete = [codes for codes in places if codes is not None]
    return SeveralCodes(complete) if len(complete) == len(places) else None


def _united(pools: Sequence[Pool | None]) -> Pool | None:
    """The rows of all places, each with its highest estimate; None if a place has none."""
    complete = [pool for pool in pools if pool is not None]
    if len(complete) < len(pools):
        return None
    rows, numbers = np.unique(np.concatenate([pool.rows for pool in complete]), return_inverse=True)
    scores = np.full(len(rows), -np.inf)
    np.maximum.at(scores, numbers, np.concatenate([pool.scores for pool in complete]))
    error = max(pool.error for pool in complete)
    return Pool(rows, scores, error, rest=max(pool.rest for pool in complete))
