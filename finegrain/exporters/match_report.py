"""The result of comparing an exported match head with its eager twin."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from finegrain.exporters.profile import ExportProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchReport:
    """How close an exported match head is to its eager twin, and its effect on the metrics.

    Attributes:
        num_pairs: Number of pairs of caption and picture that were compared.
        probability_error: Largest error of the probability of a match.
        weight: Weight of the match probability beside the cosine, selected by mAP on these pairs.
        first_rank1, first_mAP: Metrics of the embeddings alone, in percent.
        eager_rank1, eager_mAP: Metrics of the eager model after re-ranking, in percent.
        rank1, mAP: Metrics of the exported model after re-ranking, in percent.
    """

    num_pairs: int
    probability_error: float
    weight: float
    first_rank1: float
    first_mAP: float  # noqa: N815
    eager_rank1: float
    eager_mAP: float  # noqa: N815
    rank1: float
    mAP: float  # noqa: N815

    def to_dict(self) -> dict[str, Any]:
        return {f"match_{name}": value for name, value in asdict(self).items()}

    def failures(self, profile: ExportProfile) -> list[str]:
        """A sentence for each bound of the profile that is exceeded."""
        failed = []
        # `not <=` fails for a NaN, and `>` does not.
        if not self.probability_error <= profile.max_match_error:
            failed.append(
                f"a probability of a match is off by {self.probability_error:.4f}, more than "
                f"{profile.max_match_error}"
            )
        drift = np.maximum(self.eager_rank1 - self.rank1, self.eager_mAP - self.mAP)
        if not drift <= profile.max_drift:
            failed.append(
                f"re-ranked, rank1 or mAP falls by {drift:.2f} points, more than "
                f"{profile.max_drift}"
            )
        return failed

    def __str__(self) -> str:
        return tabulate([asdict(self)], headers="keys", floatfmt=".4f")
