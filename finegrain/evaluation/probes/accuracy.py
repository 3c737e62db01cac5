"""The share of questions that a model answers right, with its confidence interval."""

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
    """A model's accuracy in one probe, from 0 to 1.

    Attributes:
        probe: Name of the probe.
        items: Number of questions.
        choices: Number of answers per question.
        accuracy: Share of questions answered right. A question counts as ``1 / n`` where ``n``
            answers tie for the best score and one of them is right.
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
        """The 95 % confidence interval of the accuracy: its lowest and highest value."""
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
    """A probe that was skipped, and the reason."""

    probe: str
    why: str

    def __str__(self) -> str:
        return f"{self.probe}: not asked; {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """The results of all probes on one split, and the probes that were skipped."""

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
        scores: Scores of ``C`` answers to ``N`` questions, ``[N, C]``. The first answer is right.

    Raises:
        EvaluationError: There is no question, fewer than two answers, or a score is not finite.

    >>> choice_accuracy([[0.9, 0.1], [0.2, 0.8]])
    0.5
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or not len(table) or table.shape[1] < 2:
        raise EvaluationError(
            f"expected scores of two answers or more to each question, got shape {table.shape}"
        )
    if not np.isfinite(table).all():
        raise EvaluationError("expected finite scores, got NaN or infinity among them")
    best = table == table.max(axis=1, keepdims=True)
    return float(np.mean(best[:, 0] / best.sum(axis=1)))


def wilson_interval(share: float, count: int, *, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927), valid for few trials and near 0 and 1.

    Args:
        share: Successes divided by trials, from 0 to 1.
        count: Number of independent trials.
        z: Quantile of the standard normal distribution for the confidence level.

    Returns:
        The lower and the upper end, from 0 to 1.

    Raises:
        EvaluationError: ``share`` is outside 0 to 1, or ``count`` is below 1.
    """
    if not 0 <= share <= 1 or count < 1:
        raise EvaluationError(
            f"expected a share from 0 to 1 of at least one trial, got {share!r} of {count!r}"
        )
    spread = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    middle = share + z * z / (2 * count)
    scale = 1 + z * z / count
    # For a share of 0 or 1 one end is the share itself; min and max undo rounding errors.
    low, high = max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
    return min(share, low), max(share, high)
