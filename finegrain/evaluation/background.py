"""The plan's member ``background.npz``: what hub correction needs.

It has two arrays: ``captions``, the bank as float16 ``[M, D]``, and ``settings``, JSON as bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from finegrain.bounded.npz import read_npz, write_npz
from finegrain.bounded.strict_json import parse_strict
from finegrain.errors import PlanError
from finegrain.evaluation.hub_correction import HubCorrection, choose
from finegrain.evaluation.match_probability import Flags, MatchProbability, Scores, fit_or_none
from finegrain.plan import BACKGROUND, Plan

MAX_CAPTIONS = 4000
MAX_WEIGHT = 10.0
_SETTINGS = ("weight", "neighbours", "source", "match_probability")
_COEFFICIENTS = ("intercept", "score", "z", "log_size", "below_best")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Background:
    """The bank of captions and the settings of hub correction.

    Attributes:
        captions: Embeddings of captions, float16 ``[M, D]``.
        weight, neighbours: See :class:`~finegrain.evaluation.hub_correction.HubCorrection`.
        source: Where the captions come from.
        match_probability: The probability of a match, fitted on corrected scores; None if it was
            not fitted. The manifest has that of scores without correction.
    """

    captions: NDArray[np.float16]
    weight: float
    neighbours: int
    source: str
    match_probability: MatchProbability | None = None

    @classmethod
    def chosen(
        cls,
        captions: npt.ArrayLike,
        images: NDArray[np.float32],
        scores: NDArray[np.floating],
        right: NDArray[np.bool_],
        *,
        source: str,
    ) -> Self:
        """A background whose settings are chosen on validation queries.

        If no correction is best, one caption is kept, which is not used.

        Args:
            captions: Embeddings of the bank, ``[M, D]``.
            images, scores, right: See :func:`~finegrain.evaluation.hub_correction.choose`.
            source: Where the captions come from.
        """
        halves = np.asarray(captions, np.float16)
        best = choose(halves.astype(np.float32), images, scores, right)
        kept = halves if best.weight else halves[:1]
        return cls(captions=kept, weight=best.weight, neighbours=best.neighbours, source=source)

    def fitted(self, images: NDArray[np.float32], scores: Scores, right: Flags) -> Self:
        """The same background with the probability of a match, fitted on corrected scores.

        Args:
            images: Embeddings of pictures, ``[G, D]``.
            scores: Scores of queries and pictures without correction, ``[Q, G]``.
            right: Which pictures are right, ``[Q, G]``.
        """
        correction = self.hub_correction
        if correction is None:
            return self
        corrected = scores + correction.biases(images)
        return replace(self, match_probability=fit_or_none(corrected, right))

    @property
    def hub_correction(self) -> HubCorrection | None:
        """The correction; None if its weight is 0."""
        if not self.weight:
            return None
        return HubCorrection(self.captions.astype(np.float32), self.weight, self.neighbours)

    def __str__(self) -> str:
        if not self.weight:
            return f"nothing: no weight was better than 0 with {self.source}"
        return (
            f"{self.weight:g} x mean of the {self.neighbours} greatest scores with "
            f"{len(self.captions):,} {self.source}"
        )

    @property
    def fingerprint(self) -> str:
        """Hash of everything that a bias depends on besides the picture."""
        settings = f"{self.captions.shape}:{self.weight!r}:{self.neighbours}:"
        return hashlib.sha256(settings.encode() + self.captions.tobytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The content of the member; :meth:`from_bytes` reads it."""
        settings = {
            "weight": self.weight,
            "neighbours": self.neighbours,
            "source": self.source,
            "match_probability": self.match_probability and self.match_probability.to_dict(),
        }
        text = json.dumps(settings, allow_nan=False).encode()
        captions = np.ascontiguousarray(self.captions)
        return write_npz({"captions": captions, "settings": np.frombuffer(text, np.uint8)})

    @classmethod
    def of_plan(cls, plan: Plan) -> Self | None:
        """Take the member out of a freshly opened plan; None if it has none.

        Raises:
            PlanError: The member is damaged or invalid.
        """
        if BACKGROUND not in plan:
            return None
        return cls.from_bytes(plan.take(BACKGROUND), embed_dim=plan.manifest.embed_dim)

    @classmethod
    def from_bytes(cls, data: bytes, *, embed_dim: int) -> Self:
        """Read the member of a plan with embeddings of this width.

        Raises:
            PlanError: The content is damaged or invalid.
        """
        try:
            arrays = read_npz(data, {"captions": (np.float16, 2), "settings": (np.uint8, 1)})
            settings = _checked(parse_strict(arrays["settings"].tobytes()))
        except (ValueError, RecursionError) as error:
            raise PlanError(
                f"background.npz of the plan is invalid ({error}). Export the plan again, or "
                "write another one with: finegrain calibrate PLAN --bank TEXTS --queries FILE"
            ) from error
        captions = arrays["captions"]
        count, width = captions.shape
        is_usable = width == embed_dim and 1 <= settings["neighbours"] <= count <= MAX_CAPTIONS
        if not is_usable or not np.isfinite(captions).all():
            raise PlanError(
                f"background.npz of the plan: expected up to {MAX_CAPTIONS} finite embeddings of "
                f"width {embed_dim}, and at least {settings['neighbours']}; got "
                f"{list(captions.shape)}. Export the plan again."
            )
        fitted = settings.pop("match_probability")
        return cls(
            captions=captions,
            **settings,
            match_probability=None if fitted is None else MatchProbability.from_dict(fitted),
        )


def bank_of(captions: Sequence[str], *, seed: int = 0) -> list[str]:
    """Up to 4,000 different captions, chosen at random; a seed gives the same choice everywhere."""
    different = list(dict.fromkeys(captions))
    order = np.random.default_rng(seed).permutation(len(different))[:MAX_CAPTIONS]
    return [different[place] for place in sorted(order.tolist())]


def _checked(settings: Any) -> dict[str, Any]:
    """The settings, whose types and ranges are checked.

    Raises:
        ValueError: They are invalid.
    """
    if not isinstance(settings, dict) or settings.keys() != set(_SETTINGS):
        raise ValueError(f"expected the settings {', '.join(_SETTINGS)}")
    weight, neighbours, source, fitted = (settings[name] for name in _SETTINGS)
    if not _is_number(weight) or not 0 <= weight <= MAX_WEIGHT:
        raise ValueError(f"expected a weight from 0 to {MAX_WEIGHT:g}, got {weight!r:.40}")
    if type(neighbours) is not int or neighbours < 1:
        raise ValueError(f"expected neighbours of 1 or more, got {neighbours!r:.40}")
    if not isinstance(source, str):
        raise ValueError(f"expected a text as source, got {source!r:.40}")
    if fitted is not None and not _are_coefficients(fitted):
        raise ValueError("expected the five coefficients of a probability")
    return {**settings, "weight": float(weight)}


def _are_coefficients(value: Any) -> bool:
    is_complete = isinstance(value, Mapping) and value.keys() == set(_COEFFICIENTS)
    return is_complete and all(map(_is_number, value.values()))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and isfinite(value)
