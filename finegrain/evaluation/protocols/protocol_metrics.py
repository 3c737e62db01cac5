"""Metrics with the name of their protocol and the metrics of random guessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from finegrain.metrics import RetrievalMetrics

DEPTHS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class ProtocolMetrics:
    """Metrics in both directions, with the protocol that they belong to.

    Attributes:
        protocol: Name of the protocol with everything that its metrics depend on.
        text_to_image, image_to_text: The metrics, in percent.
        chance: Direction to the metrics of random guessing at ranks 1, 5 and 10, in percent.
    """

    protocol: str
    text_to_image: RetrievalMetrics
    image_to_text: RetrievalMetrics
    chance: Mapping[str, Mapping[int, float]]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        rows = []
        for name in ("text_to_image", "image_to_text"):
            metrics: RetrievalMetrics = getattr(self, name)
            ranks = (metrics.rank1, metrics.rank5, metrics.rank10)
            queries, gallery = metrics.num_queries, metrics.num_gallery
            rows.append([name.replace("_", " "), *ranks, metrics.mAP, queries, gallery])
            rows.append(["  by chance", *(self.chance[name][k] for k in DEPTHS)])
        headers = ["direction", "rank1", "rank5", "rank10", "mAP", "queries", "candidates"]
        table = tabulate(rows, headers=headers, floatfmt=".2f")
        return f"{self.protocol}\n\n{table}"


def chance(right: npt.NDArray[np.int64], gallery: npt.NDArray[np.int64]) -> dict[int, float]:
    """The probability, in percent, that random guessing has a right answer among the first k.

    The mean over queries of ``1 - C(G - P, k) / C(G, k)`` with P right answers among G.

    Args:
        right: P of each query, ``[Q]``.
        gallery: G of each query, ``[Q]``.

    Returns:
        Each k of :data:`DEPTHS` to percent.

    >>> chance(np.array([1]), np.array([4]))
    {1: 25.0, 5: 100.0, 10: 100.0}
    """
    percent = {}
    for k in DEPTHS:
        missed = np.ones(len(right))
        for i in range(k):
            missed *= np.maximum(gallery - right - i, 0) / np.maximum(gallery - i, 1)
        percent[k] = 100.0 * float(np.mean(1.0 - missed))
    return percent
