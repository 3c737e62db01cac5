"""The plain values that pass between the parts of finegrain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scalar = str | int | float | bool | None
"""What a metadata value may be: what JSON and every store can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One picture and the captions that describe it.

    Attributes:
        image: Path of the picture.
        captions: What people wrote about it; at least one.
        pid: Identity of the person (or product). Pictures of one pid are positives of
            each other's captions.
        camera: Name of the camera, where the dataset states it.
        metadata: Further columns, carried through to the gallery and its filters.
    """

    image: Path
    captions: tuple[str, ...]
    pid: int
    camera: str | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A row or file that was left out, and why."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One part of a dataset: ``train``, ``val`` or ``test``."""

    name: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def num_pids(self) -> int:
        return len({sample.pid for sample in self.samples})

    @property
    def num_captions(self) -> int:
        return sum(len(sample.captions) for sample in self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.samples)} pictures, {self.num_captions} captions, "
            f"{self.num_pids} identities"
            + (f", {len(self.problems)} left out" if self.problems else "")
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureTokens:
    """What a match head looks at of each picture: ``codes * scales[..., None]``.

    Attributes:
        codes: ``[N, T, W]``, int8, or float32 straight from an eager model.
        scales: One for each token, float32 ``[N, T]``.
    """

    codes: NDArray[Any]
    scales: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, some: slice | NDArray[np.intp]) -> PictureTokens:
        return PictureTokens(codes=self.codes[some], scales=self.scales[some])
