"""The score that few wrong pictures reach, from the scores of pictures in general.

A rate of false alarms needs a score that one wrong picture in ten thousand reaches, and a sample of
the gallery has too few pictures to see it. The tail of the sample's scores is therefore continued
by a generalised Pareto distribution (Pickands, 1975), fitted by probability-weighted moments
(Hosking and Wallis, 1987).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import GalleryError

Scores = NDArray[np.float64]

LEAST_BACKGROUND = 200
"""Fewest pictures whose scores show what a query usually scores."""

TAIL = 0.05
"""Share of the highest scores that the distribution is fitted to."""

SHAPES = (-0.1, 0.3)
"""Range of the fitted shape. Free shapes of few scores gave several times too many alarms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The least score of an alarm, and what it was computed from.

    Attributes:
        score: The least score.
        false_alarms_per_day: The rate that was asked for.
        pictures_per_day: Number of pictures that are expected in a day.
        background: Number of scores that it was computed from.
    """

    score: float
    false_alarms_per_day: float
    pictures_per_day: float
    background: int

    @classmethod
    def of(cls, scores: Scores, false_alarms_per_day: float, pictures_per_day: float) -> Self:
        """The threshold for a rate.

        Args:
            scores: Scores of pictures in general, ``[S]``.
            false_alarms_per_day: The rate of false alarms.
            pictures_per_day: Number of pictures in a day, each of which may be a false alarm.

        Raises:
            GalleryError: There are fewer than 200 scores.
        """
        if len(scores) < LEAST_BACKGROUND:
            raise GalleryError(
                f"expected at least {LEAST_BACKGROUND} pictures, whose scores show what a false "
                f"alarm is, got {len(scores)}. Add pictures first, or give the least score itself "
                "as min_score (--min-score)."
            )
        share = min(false_alarms_per_day / pictures_per_day, 1.0)
        return cls(
            score=exceeded_by(scores, share),
            false_alarms_per_day=false_alarms_per_day,
            pictures_per_day=pictures_per_day,
            background=len(scores),
        )


def exceeded_by(scores: Scores, share: float) -> float:
    """The score that a share of pictures exceeds.

    Args:
        scores: Scores of a sample, ``[S]``.
        share: The share, above 0 and up to 1, which may be far below ``1 / S``.
    """
    ordered = np.sort(scores)
    num_tail = max(int(TAIL * len(ordered)), 2)
    if share >= num_tail / len(ordered):
        return float(np.quantile(ordered, 1 - share, method="lower"))
    start = ordered[-num_tail - 1]
    excess = ordered[-num_tail:] - start
    shape, scale = fitted(excess)
    ratio = share * len(ordered) / num_tail
    # expm1 keeps its digits where the shape is near zero, which is the exponential distribution
    steps = -np.log(ratio)
    return float(start + scale * (np.expm1(shape * steps) / shape if shape else steps))


def fitted(excess: Scores) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution.

    Args:
        excess: What the scores of the tail exceed its start by, ascending, ``[T]``.
    """
    count = len(excess)
    mean = float(excess.mean())
    weighted = float((np.arange(count - 1, -1, -1) / (count - 1) * excess).mean())
    if mean - 2 * weighted <= 0:  # all scores are equal
        return 0.0, mean
    shape = 2 - mean / (mean - 2 * weighted)
    shape = min(max(shape, SHAPES[0]), SHAPES[1])
    return shape, mean * (1 - shape)
