"""How many questions a model answers right, with the interval that so few questions allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from finegrain.errors import EvaluationError

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A model's accuracy in one probe; from 0 to 1.

    Attributes:
        probe: Name of the probe.
        items: Questions asked.
        choices: Answers to each.
        accuracy: Share answered right. Where ``n`` answers tie for the best, one of which is
            right, that counts as ``1 / n``.
    """

    probe: str
    items: int
    choices: int
    accuracy: float

    @property
    def chance(self) -> float:
        return 1 / self.choices

    @property
    def interval(self) -> tuple[float, float]:
        """Lowest and highest accuracy that is likely over more such questions, at 95 %."""
        return wilson_interval(self.accuracy, self.items)

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "probe": self.probe,
            "items": self.items,
            "choices": self.choices,
            "chance": round(self.chance, 4),
            "accuracy": round(self.accuracy, 4),
            "interval": [round(low, 4), round(high, 4)],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A probe that was not asked, and why."""

    probe: str
    why: str

    def __str__(self) -> str:
        return f"{self.probe}: not asked; {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """The probes of one split."""

    split: str
    results: tuple[Accuracy, ...]
    skipped: tuple[Skipped, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "probes": [result.to_dict() for result in self.results],
            "skipped": {skipped.probe: skipped.why for skipped in self.skipped},
        }

    def __str__(self) -> str:
        rows = [
            (
                result.probe,
                str(result.items),
                str(result.choices),
                f"{100 * result.chance:.1f}",
                f"{100 * result.accuracy:.1f}",
                "{:.1f} to {:.1f}".format(*(100 * end for end in result.interval)),
            )
            for result in self.results
        ]
        headers = [f"probe ({self.split})", "items", "choices", "chance", "accuracy", "95 %"]
        table = [tabulate(rows, headers=headers, disable_numparse=True)] if rows else []
        return "\n".join([*table, *map(str, self.skipped)])


def choice_accuracy(scores: npt.ArrayLike) -> float:
    """The share of questions whose right answer has the best score.

    Args:
        scores: ``[N, C]`` of ``C`` answers to each of ``N`` questions, the right one first.

    Raises:
        EvaluationError: There is no question, or nothing to choose from, or a score is not
            finite.
    """
    given = np.asarray(scores, np.float64)
    if given.ndim != 2 or not len(given) or given.shape[1] < 2:
        raise EvaluationError(
            f"expected scores of two answers or more to each question, got shape {given.shape}"
        )
    if not np.isfinite(given).all():
        raise EvaluationError("expected finite scores, got NaN or infinity among them")
    best = given == given.max(axis=1, keepdims=True)
    return float(np.mean(best[:, 0] / best.sum(axis=1)))


def wilson_interval(share: float, count: int, *, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927), sound for few trials and near 0 and 1.

    Args:
        share: Successes by trials, from 0 to 1.
        count: Trials, taken as independent.
        z: Standard normal quantile of the confidence.
    """
    if not 0 <= share <= 1 or count < 1:
        raise EvaluationError(
            f"expected a share from 0 to 1 of at least one trial, got {share!r} of {count!r}"
        )
    spread = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    middle = share + z * z / (2 * count)
    scale = 1 + z * z / count
    # At 0 and 1 one end is the share itself, which rounding may miss.
    low, high = max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
    return min(share, low), max(share, high)
