"""Hub correction: lowers the scores of pictures that are near many queries.

Each picture gets a bias, which is added to its inner product with a query::

    bias(g) = -weight * mean of the k greatest inner products of g with the bank

The bank holds embeddings of captions that are no test queries. The bias of a picture depends on
the picture and the bank alone, so other pictures of a gallery do not change it. This is nearest
neighbour normalisation (Chowdhury et al., EMNLP 2024, https://arxiv.org/abs/2410.24114).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from finegrain.metrics import RetrievalMetrics, ranks_of, retrieval_metrics

WEIGHTS = (0.25, 0.5, 0.75, 1.0)
NEIGHBOURS = (8, 16, 32, 64, 128)
"""Settings that are tried on validation queries, besides no correction."""

_ROWS_AT_ONCE = 1024

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class HubCorrection:
    """Computes the biases of pictures.

    Attributes:
        bank: Embeddings of captions, ``[M, D]``.
        weight: Weight of the mean; 0 means no correction.
        neighbours: Number of captions in the mean, from 1 to ``M``.
    """

    bank: Vectors
    weight: float
    neighbours: int

    def biases(self, vectors: npt.ArrayLike) -> Vectors:
        """The biases of pictures from their embeddings ``[N, D]``, float32 ``[N]``."""
        rows = np.asarray(vectors, np.float32)
        if not self.weight:
            return np.zeros(len(rows), np.float32)
        means = [
            _mean_of_greatest(rows[start : start + _ROWS_AT_ONCE] @ self.bank.T, self.neighbours)
            for start in range(0, len(rows), _ROWS_AT_ONCE)
        ]
        biases: Vectors = (-self.weight * np.concatenate([*means, np.empty(0)])).astype(np.float32)
        return biases

    def metrics(
        self,
        texts: npt.ArrayLike,
        images: npt.ArrayLike,
        query_pids: npt.ArrayLike,
        gallery_pids: npt.ArrayLike,
    ) -> RetrievalMetrics:
        """Metrics of texts that search pictures; see :func:`~finegrain.metrics.retrieval_metrics`.

        A bias is an inner product of one more column, which is 1 in each query.
        """
        queries, gallery = np.asarray(texts, np.float32), np.asarray(images, np.float32)
        return retrieval_metrics(
            np.column_stack([queries, np.ones(len(queries), np.float32)]),
            np.column_stack([gallery, self.biases(gallery)]),
            query_pids,
            gallery_pids,
        )


def choose(
    bank: Vectors, images: Vectors, scores: NDArray[np.floating], right: NDArray[np.bool_]
) -> HubCorrection:
    """The settings with the highest mAP of queries that are not in the bank.

    No correction is one of them. It is kept unless another setting has a higher mAP.

    Args:
        bank: Embeddings of captions, ``[M, D]``.
        images: Embeddings of pictures, ``[G, D]``.
        scores: Inner products of queries and these pictures, ``[Q, G]``.
        right: Which pictures are right, ``[Q, G]``; queries without one are left out.
    """
    answered = right.any(axis=1)
    matches = [np.flatnonzero(row) for row in right[answered]]
    tried = [HubCorrection(bank, 0.0, 1)]
    for neighbours, weight in product(NEIGHBOURS, WEIGHTS):
        if neighbours <= len(bank):
            tried.append(HubCorrection(bank, weight, neighbours))

    def mean_precision(correction: HubCorrection) -> float:
        corrected = scores[answered] + correction.biases(images)
        ranks = (ranks_of(own, row) for own, row in zip(matches, corrected, strict=True))
        return RetrievalMetrics.from_ranks(ranks, num_gallery=len(images)).mAP

    return tried[int(np.argmax([mean_precision(correction) for correction in tried]))]


def _mean_of_greatest(products: Vectors, k: int) -> NDArray[np.float64]:
    """Mean of the ``k`` greatest numbers of each row."""
    greatest = np.partition(products, products.shape[1] - k, axis=1)[:, -k:]
    means: NDArray[np.float64] = greatest.mean(axis=1, dtype=np.float64)
    return means
