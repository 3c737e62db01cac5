"""What the comparison of an exported match head with its eager twin found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from finegrain.exporters.profile import ExportProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchReport:
    """How near an exported match head is to its eager twin, and what it is worth.

    Attributes:
        num_pairs: Captions with pictures that were compared.
        probability_error: Most that the probability of a match is off.
        weight: What a certain match is worth in cosine, chosen by mAP on what was compared.
        first_rank1, first_mAP: Of the first stage alone, in percent.
        eager_rank1, eager_mAP: Of both stages, by the eager model.
        rank1, mAP: Of both stages, as exported.
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
        """What does not hold, as sentences; empty when all does."""
        failed = []
        # `not <=` and not `>`: a NaN must fail.
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
