"""Evaluation of decisions: is the first match right, and is "nobody" recognised?

Each picture's first caption is a query to a gallery that is cut out of the split. For half of the
queries, all right pictures are removed from the gallery. Where the data names cameras, galleries of
easy and of hard strangers are measured as well (:mod:`finegrain.evaluation.strangers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError, require
from finegrain.evaluation.background import Background
from finegrain.evaluation.decisions import (
    AtThreshold,
    ReliabilityBin,
    at_threshold,
    brier_score,
    fnir_at_fpir,
    ndcg_at_k,
    reliability,
)
from finegrain.evaluation.hub_correction import HubCorrection
from finegrain.evaluation.match_probability import (
    Flags,
    Level,
    MatchProbability,
    Scores,
    fit_or_none,
    trials,
)
from finegrain.evaluation.probes.attributes import columns_of_attributes
from finegrain.evaluation.strangers import ALL, strangers_of
from finegrain.records import Sample, Split

if TYPE_CHECKING:
    from finegrain.data.datasets import Dataset

FPIRS = (0.01, 0.1)
SIZES = (100, 1000, 10_000)
THRESHOLDS = (0.25, 0.5, 0.75, 0.9)
"""Probabilities at which precision, recall and F1 are measured."""
K = 10
_BINS = 10
_LEAST_PICTURES = 40
_NAMED = ("bins", "thresholds")
_SEED = 1


class Judged(NamedTuple):
    """The first match of each query.

    Attributes:
        cosine: Its score, ``[Q]``.
        probability: Its probability, ``[Q]``; NaN without a calibration.
        right: Whether it is right, ``[Q]``.
        present: Whether the gallery has a right picture, ``[Q]``.
    """

    cosine: Scores
    probability: Scores
    right: Flags
    present: Flags


def judge(
    scores: Scores,
    right: Flags,
    sizes: Sequence[int],
    calibration: MatchProbability | None,
    strangers: Flags | None = None,
) -> Judged:
    """The first match of each query in a gallery of each size.

    Args:
        scores: Scores of queries and pictures, ``[Q, G]``.
        right: Which pictures are right, ``[Q, G]``.
        sizes: Numbers of pictures of the galleries.
        calibration: Coefficients of the probability.
        strangers: Which wrong pictures may be in the galleries, ``[Q, G]``; by default, all.
    """
    random = np.random.default_rng(_SEED)
    rows = []
    for size in sizes:
        for trial in trials(scores, right, size, random, strangers):
            best = int(trial.scores.argmax())
            first = trial.scores[[best]]
            chance = np.nan
            if calibration is not None:
                level = Level.of(trial.scores, size)
                chance = float(calibration.of(first, float(first[0]), level)[0])
            rows.append((float(first[0]), chance, trial.right[best], trial.right.any()))
    cosine, probability, is_right, present = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    return Judged(cosine, probability, is_right, present)


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSize:
    """Rates in galleries of one size.

    Attributes:
        size: Number of pictures in the gallery.
        score: ``cosine`` or ``probability``, to which the threshold applies.
        fnir: FPIR to FNIR (:func:`~finegrain.evaluation.decisions.fnir_at_fpir`).
        without_threshold: Share of the queries for present people whose first match is wrong.
        strangers: The wrong pictures of the gallery: ``all``, ``easy`` or ``hard``.
    """

    size: int
    score: str
    fnir: Mapping[float, float]
    without_threshold: float
    strangers: str = ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSet:
    """Metrics of decisions on a split.

    Attributes:
        split: Name of the split.
        rates: Rates by size and score.
        calibrated_on: Where the probability comes from; None if there is none.
        brier: Brier score of the probability of the first match, over all sizes.
        brier_of_a_constant: The same if each probability is the share of right first matches.
        bins: Reliability in bins of equal mass.
        thresholds: Precision, recall and F1 where a match needs a least probability, over all
            sizes.
        is_corrected: Whether scores include the hub correction of the plan.
        ndcg: NDCG at 10, where the grade of a picture is the share of the query's columns that it
            has as well; None if the samples have no such columns.
    """

    split: str
    rates: tuple[AtSize, ...]
    calibrated_on: str | None = None
    brier: float | None = None
    brier_of_a_constant: float | None = None
    bins: tuple[ReliabilityBin, ...] = ()
    thresholds: tuple[AtThreshold, ...] = ()
    is_corrected: bool = False
    ndcg: float | None = None

    def to_dict(self) -> dict[str, object]:
        named = {name: [part._asdict() for part in getattr(self, name)] for name in _NAMED}
        return {**asdict(self), **named}

    def __str__(self) -> str:
        rows = [
            (at.score, at.size, at.strangers, *(100 * rate for rate in at.fnir.values()),
             100 * at.without_threshold)
            for at in self.rates
        ]  # fmt: skip
        heads = [f"FNIR at FPIR {100 * fpir:g} %" for fpir in FPIRS]
        headers = [
            f"{self.split}, score", "pictures", "strangers", *heads, "without threshold"
        ]  # fmt: skip
        lines = [tabulate(rows, headers=headers, floatfmt=".2f")]
        if self.is_corrected:
            lines.append("scores include hub correction")
        if self.brier is None:
            lines.append("no probability: the model has no calibration")
        else:
            lines.append(
                f"Brier score {self.brier:.3f} ({self.brier_of_a_constant:.3f} of a constant), "
                f"calibrated on {self.calibrated_on}"
            )
            shares = [(f"{part.probability:.2f}", f"{part.right:.2f}") for part in self.bins]
            lines.append(tabulate(shares, headers=["probability", "share right"]))
            heads = ["least probability", "precision", "recall", "F1"]
            lines.append(tabulate(self.thresholds, headers=heads, floatfmt=".3f"))
        if self.ndcg is not None:
            lines.append(f"NDCG@{K} of the share of columns: {self.ndcg:.4f}")
        return "\n".join(lines)

    def plot(self, path: Path) -> None:
        """Draw the rates, the reliability, and precision and recall by threshold.

        Raises:
            EvaluationError: There is no probability.
            MissingExtraError: matplotlib is not installed.
        """
        from finegrain.evaluation.decisions_plot import draw_decisions

        if not self.bins:
            raise EvaluationError(
                "there is no probability to plot: evaluate a calibrated plan, or another split "
                "than val"
            )
        draw_decisions([self], path)


def open_set(model: str | Path | Encoder, data: Dataset | None = None, *, split: str) -> OpenSet:
    """Evaluate the decisions of a model on a split.

    A plan with a calibration is evaluated with it, and with its hub correction. Otherwise the
    probability is fitted on the validation split, unless that is the split to evaluate.

    Args:
        model: A run folder, a plan, or an encoder.
        data: The dataset. The default is the one that the run or plan was trained on.
        split: Name of the split.

    Raises:
        DataError: The dataset cannot be read, or has no such split.
        PlanError, CheckpointError: The model cannot be read.
        EvaluationError: The split has too few pictures.
    """
    require("torch", "train")
    from finegrain.data.datasets import take_split
    from finegrain.plan import Plan
    from finegrain.runs.run import open_model

    encoder, data = open_model(model, data)
    coefficients, correction = None, None
    if not isinstance(model, Encoder) and not Path(model).is_dir():
        plan = Plan(model)
        coefficients = plan.manifest.match_probability
        background = Background.of_plan(plan)
        if background is not None and background.match_probability is not None:
            coefficients = background.match_probability.to_dict()
            correction = background.hub_correction
    splits = data.splits()
    calibration, calibrated_on = None, None
    if coefficients is not None:
        calibration, calibrated_on = MatchProbability.from_dict(coefficients), "the plan's queries"
    elif split != "val" and "val" in splits:
        calibration = fit_or_none(*scores_of(encoder, splits["val"]))
        calibrated_on = None if calibration is None else "the split val"
    return open_set_of(
        encoder,
        take_split(splits, split),
        calibration,
        calibrated_on=calibrated_on,
        correction=correction,
    )


def open_set_of(
    encoder: Encoder,
    split: Split,
    calibration: MatchProbability | None,
    *,
    calibrated_on: str | None = None,
    correction: HubCorrection | None = None,
) -> OpenSet:
    """Evaluate decisions on one split; see :func:`open_set`."""
    scores, right = scores_of(encoder, split, correction)
    most = int((~right).sum(axis=1).min())
    if most < _LEAST_PICTURES:
        raise EvaluationError(
            f"expected {_LEAST_PICTURES} wrong pictures or more for each query of {split.name}, "
            f"got {most}. Evaluate a larger split."
        )
    rates, every = [], []
    for size in [*(size for size in SIZES if size < most), most]:
        judged = judge(scores, right, [size], calibration)
        every.append(judged)
        rates += _rates(judged, size, ALL)
    for kind, strangers in strangers_of(split.samples, right).items():
        size = min(SIZES[0], int((strangers & ~right).sum(axis=1).min()))
        rates += _rates(judge(scores, right, [size], calibration, strangers), size, kind)
    joined = Judged(*(np.concatenate(column) for column in zip(*every, strict=True)))
    is_calibrated = calibration is not None
    share = float(joined.right.mean())
    return OpenSet(
        split=split.name,
        rates=tuple(rates),
        calibrated_on=calibrated_on if is_calibrated else None,
        brier=brier_score(joined.probability, joined.right) if is_calibrated else None,
        brier_of_a_constant=share * (1 - share) if is_calibrated else None,
        bins=tuple(reliability(joined.probability, joined.right, _BINS)) if is_calibrated else (),
        thresholds=tuple(
            at_threshold(joined.probability, joined.right, joined.present, threshold)
            for threshold in (THRESHOLDS if is_calibrated else ())
        ),
        is_corrected=correction is not None,
        ndcg=_ndcg(scores, split.samples),
    )


def scores_of(
    encoder: Encoder, split: Split, correction: HubCorrection | None = None
) -> tuple[Scores, Flags]:
    """Scores of each picture's first caption with all pictures, and which are right, ``[N, N]``."""
    images = encoder.encode_images([sample.image for sample in split.samples])
    texts = encoder.encode_texts([sample.captions[0] for sample in split.samples])
    pids = split.identities()
    scores = texts.astype(np.float64) @ images.T
    if correction is not None:
        scores += correction.biases(images)
    return scores, pids[:, None] == pids[None]


def _rates(judged: Judged, size: int, strangers: str) -> list[AtSize]:
    """Rates of the cosine, and of the probability if there is one."""
    present = judged.present
    scores = {"cosine": judged.cosine, "probability": judged.probability}
    return [
        AtSize(
            size=size,
            score=name,
            fnir={
                fpir: fnir_at_fpir(values[present], judged.right[present], values[~present], fpir)
                for fpir in FPIRS
            },
            without_threshold=float(np.mean(~judged.right[present])),
            strangers=strangers,
        )
        for name, values in scores.items()
        if not np.isnan(values).any()
    ]


def _ndcg(scores: Scores, samples: Sequence[Sample]) -> float | None:
    """Mean NDCG over queries; None if no column has few texts that repeat."""
    names = list(columns_of_attributes(samples))
    if not names:
        return None
    values = np.array([[str(s.metadata.get(n) or "").lower() for n in names] for s in samples])
    gains = []
    for row, own in zip(scores, values, strict=True):
        known = own != ""
        if known.any():
            grades: NDArray[np.float64] = (values[:, known] == own[known]).mean(axis=1)
            first = np.argsort(-row, kind="stable")[:K]
            gains.append(ndcg_at_k(grades[first].tolist(), grades.tolist(), K))
    return float(np.mean(gains)) if gains else None
