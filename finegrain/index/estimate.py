"""Fast estimates of scores, with proven error bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

_UNDERFLOW = 2.0**-50  # bounds the error of a norm due to underflow of squares


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One query. Estimates are computed for its direction, which has length 1.

    Attributes:
        vector: The query ``[D]``.
        length: Its L2 norm, or 1 if all its numbers are zero.
        direction: ``vector / length``, ``[D]``.
    """

    vector: Doubles
    length: float = field(init=False)
    direction: Doubles = field(init=False)

    def __post_init__(self) -> None:
        length = float(np.linalg.norm(self.vector)) or 1.0
        object.__setattr__(self, "length", length)
        object.__setattr__(self, "direction", self.vector / length)

    def scores(self, vectors: Vectors, biases: Vectors | None = None) -> Vectors:
        """Inner products plus biases ``[n]``, in float64, rounded once to float32.

        Each row is summed in the same fixed order, so that equal rows have equal scores wherever
        they are. A matrix product by BLAS does not guarantee that.

        Args:
            vectors: Rows ``[n, D]``. With ``K`` vectors a row, ``[n, K D]``: the highest product
                of the vectors of a row counts.
            biases: The biases.
        """
        products: Doubles = highest_products(vectors.astype(np.float64), self.vector)
        if biases is not None:
            products += biases
        return products.astype(np.float32)

    def rounding(self, longest: float, biases: Vectors | None = None) -> float:
        """Error bound of a float32 inner product relative to :meth:`scores`.

        It holds for vectors of length up to ``longest``. The error of a sum of ``D`` products in
        any order is at most ``D u / (1 - D u)`` times the product of the two lengths, with
        ``u = 2^-24``. Twice ``(D + 4) u`` also covers the rounding of the direction and of the
        score. The last term is the absolute rounding error of tiny scores. Biases are added in
        float64, and add to the rounding of the score.
        """
        relative = (len(self.vector) + 4) * 2.0**-23
        heaviest = 0.0 if biases is None else float(np.abs(biases).max(initial=0))
        return relative * longest + (2.0**-149 + 2.0**-22 * heaviest) / self.length


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Estimates for the rows that may be among the best.

    Attributes:
        rows: Rows ``[n]``, in any order.
        scores: Estimates for the query's direction, ``[n]``.
        error: Upper bound on the distance of an estimate from ``Query.scores / Query.length``.
        rest: Upper bound on the estimates of rows left out; ``-inf`` if none is left out.
    """

    rows: Rows
    scores: Doubles
    error: float
    rest: float

    def between(self, low: float, high: float = np.inf) -> Rows:
        """Rows whose estimate reaches ``low``, and not ``high``."""
        return self.rows[(self.scores >= low) & (self.scores < high)]

    def may_lack(self, bar: float) -> bool:
        """Whether a row that was left out may reach ``bar``."""
        return self.rest > -np.inf and self.rest + self.error >= bar


def highest_products(
    rows: npt.NDArray[np.floating], query: npt.NDArray[np.floating]
) -> npt.NDArray[Any]:
    """The highest inner product of a query ``[D]`` with a vector of each row, ``[n, K D]``."""
    # einsum uses this thread only; a matrix product would start all threads of BLAS.
    products: npt.NDArray[Any] = np.einsum("nd,d->n", rows.reshape(-1, len(query)), query)
    if len(products) == len(rows):
        return products
    highest: npt.NDArray[Any] = products.reshape(len(rows), -1).max(axis=1)
    return highest


def longest_of(vectors: Vectors) -> float:
    """Upper bound on the L2 norms of ``[n, D]``, including the rounding error of float32."""
    squares = np.einsum("nd,nd->n", vectors, vectors)
    relative: float = 1 + vectors.shape[1] * 2.0**-23
    return float(np.sqrt(squares.max())) * relative + _UNDERFLOW


def kth(scores: Iterable[npt.NDArray[np.floating]], k: int) -> float:
    """The ``k``-th highest score, or ``-inf`` if there are fewer than ``k``."""
    every = np.concatenate([np.empty(0, np.float32), *scores])
    return float(np.partition(every, -k)[-k]) if len(every) >= k else -np.inf
