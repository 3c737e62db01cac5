"""Metrics that carry the name of their protocol, beside what guessing gives."""

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
    """Metrics in both directions, never without the protocol that they belong to.

    Attributes:
        protocol: Its name with all that figures depend on.
        text_to_image, image_to_text: The metrics, in percent.
        chance: Direction to what guessing gives at ranks 1, 5 and 10, in percent.
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
            found = (metrics.rank1, metrics.rank5, metrics.rank10)
            queries, gallery = metrics.num_queries, metrics.num_gallery
            rows.append([name.replace("_", " "), *found, metrics.mAP, queries, gallery])
            rows.append(["  by chance", *(self.chance[name][k] for k in DEPTHS)])
        headers = ["direction", "rank1", "rank5", "rank10", "mAP", "queries", "candidates"]
        table = tabulate(rows, headers=headers, floatfmt=".2f")
        return f"{self.protocol}\n\n{table}"


def chance(right: npt.NDArray[np.int64], gallery: npt.NDArray[np.int64]) -> dict[int, float]:
    """What guessing gives: the odds, in percent, of a right answer among the first k.

    1 - C(G - P, k) / C(G, k) for a query with P right answers among G, the mean over queries.

    Args:
        right: P of each query ``[Q]``.
        gallery: G of each query ``[Q]``.

    Returns:
        k of `DEPTHS` to percent.
    """
    found = {}
    for k in DEPTHS:
        missed = np.ones(len(right))
        for i in range(k):
            missed *= np.maximum(gallery - right - i, 0) / np.maximum(gallery - i, 1)
        found[k] = 100.0 * float(np.mean(1.0 - missed))
    return found
