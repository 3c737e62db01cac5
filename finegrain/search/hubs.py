"""Hub correction of a gallery: one bias for each picture, from the bank of captions in the plan.

A gallery is corrected if its pictures have the biases of the plan's bank. Queries by words then add
them. A gallery of an earlier version has none, and one that was filled with another bank has
others. Queries then leave biases out, and a note names the command that computes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from finegrain.errors import PlanError
from finegrain.evaluation.background import Background
from finegrain.evaluation.hub_correction import HubCorrection
from finegrain.gallery import Gallery, Hit
from finegrain.index.exact import Vectors
from finegrain.plan import Plan
from finegrain.search.asking.sample import GallerySample

NOT_CORRECTED = (
    "hub correction was not applied: pictures of the gallery lack their biases, or have those of "
    "another plan. Compute them with: finegrain gallery correct-hubs PLAN"
)

_COMPARED = 64
_ROUNDING = 1e-4
_ROWS_AT_ONCE = 4096


class Hubs:
    """The hub correction of a searcher.

    Args:
        background: Bank and settings of the plan; None if it has none.
        gallery: The gallery.
        sample: A sample of it.
        is_on: Whether queries by words add the biases, and a new gallery gets them.
    """

    def __init__(
        self, background: Background | None, gallery: Gallery, sample: GallerySample, *, is_on: bool
    ) -> None:
        self._correction = None if background is None else background.hub_correction
        self._gallery = gallery
        self._sample = sample
        self._is_on = is_on
        self._rows: Vectors | None = None
        self._expected = np.empty(0, np.float32)
        self._biases: Vectors | None = None
        self.match_probability = None if background is None else background.match_probability
        gallery.fill_biases(self._new_biases if self.is_possible else None)

    @property
    def is_possible(self) -> bool:
        """Whether the plan has a bank, and the gallery can hold biases.

        Otherwise biases are the user's own, which every query adds.
        """
        return self._correction is not None and isinstance(self._gallery.path, Path)

    @property
    def is_on(self) -> bool:
        """Whether queries by words should add the biases."""
        return self._is_on and self.is_possible

    def sampled(self, count: int) -> Vectors | None:
        """The biases of the pictures of the sample; None if the gallery is not corrected.

        Args:
            count: Number of pictures in the gallery.
        """
        assert self._correction is not None
        rows = self._sample.rows(count)
        if rows is not self._rows:
            self._rows, self._biases = rows, None
            self._expected = self._correction.biases(rows[:_COMPARED])
        if self._biases is None:
            ids = self._sample.ids.tolist()
            first = self._stored(ids[:_COMPARED])
            if len(first) == len(self._expected) and _agree(first, self._expected):
                stored = self._stored(ids)
                self._biases = stored if stored.all() else None
        return self._biases

    def are_corrected(self, hits: Sequence[Hit]) -> bool:
        """Whether all hits have a bias.

        A bias lowers a score. So if no hit lacks one, no picture without a bias was ranked too
        high, and the hits are those of a gallery in which all pictures have one.
        """
        return bool(self._stored([hit.id for hit in hits]).all())

    def _stored(self, ids: Sequence[int]) -> Vectors:
        """The stored biases of pictures; 0 for those without one."""
        biases = self._gallery.biases(ids)
        return np.array([biases.get(id_, 0.0) for id_ in ids], np.float32)

    def _new_biases(self, vectors: Vectors) -> Vectors | None:
        """The biases of pictures to add; None for a gallery that is not corrected."""
        assert self._correction is not None
        count = len(self._gallery)
        is_wanted = self.sampled(count) is not None if count else self._is_on
        return self._correction.biases(vectors) if is_wanted else None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubsCorrected:
    """Result of :func:`correct_hubs`.

    Attributes:
        num_pictures: Number of pictures with a bias.
        num_changed: Number of pictures that got it from this call.
    """

    num_pictures: int
    num_changed: int

    def __str__(self) -> str:
        return (
            f"{self.num_pictures:,} pictures have hub correction; {self.num_changed:,} of them "
            "got it now"
        )


def correction_of(plan: Plan) -> HubCorrection:
    """The hub correction of a freshly opened plan.

    Raises:
        PlanError: The plan has none.
    """
    background = Background.of_plan(plan)
    correction = None if background is None else background.hub_correction
    if correction is None:
        why = "no bank of captions" if background is None else "no weight that helps on validation"
        raise PlanError(
            f"{plan.path} has {why}, so there is no hub correction. Export the run again, or write "
            "a bank with: finegrain calibrate PLAN --queries FILE --bank TEXTS"
        )
    return correction


def correct_hubs(
    correction: HubCorrection, gallery: Gallery, *, progress: bool = True
) -> HubsCorrected:
    """Compute the biases of all pictures that lack those of a bank.

    Biases of another bank are removed first, so that queries never mix two banks. After an
    interruption, the same call continues.

    Args:
        correction: The hub correction of the plan whose vectors the gallery holds.
        gallery: The gallery.
        progress: Show a progress bar.

    Raises:
        GalleryError: The gallery cannot be written, or is on Milvus.
    """
    num_changed = 0
    with tqdm(total=2 * len(gallery), unit=" pictures", disable=not progress) as bar:
        for ids, expected, stored in _compared(gallery, correction):
            outdated = (stored != 0) & ~_are_close(stored, expected)
            gallery.set_bias(ids[outdated].tolist(), 0.0)
            bar.update(len(ids))
        for ids, expected, stored in _compared(gallery, correction):
            missing = ~_are_close(stored, expected)
            num_changed += gallery.set_bias(ids[missing].tolist(), expected[missing])
            bar.update(len(ids))
    return HubsCorrected(num_pictures=len(gallery), num_changed=num_changed)


def _compared(
    gallery: Gallery, correction: HubCorrection
) -> Iterator[tuple[NDArray[np.int64], Vectors, Vectors]]:
    """Ids, expected biases and stored biases, in chunks; pictures without a bias have 0."""
    every = list(gallery)
    for start in range(0, len(every), _ROWS_AT_ONCE):
        vectors = gallery.vectors(every[start : start + _ROWS_AT_ONCE])
        if vectors:
            biases = gallery.biases(vectors)
            stored = np.array([biases.get(id_, 0.0) for id_ in vectors], np.float32)
            expected = correction.biases(np.stack(list(vectors.values())))
            yield np.array(list(vectors), np.int64), expected, stored


def _are_close(one: Vectors, other: Vectors) -> NDArray[np.bool_]:
    are_close: NDArray[np.bool_] = np.abs(one - other) <= _ROUNDING
    return are_close


def _agree(one: Vectors, other: Vectors) -> bool:
    return bool(_are_close(one, other).all())
