"""Finds pictures that a training split shares with a validation or test split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from finegrain.data.survey import Survey
from finegrain.errors import DataError
from finegrain.records import Split, identities

READING_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """The pictures that two splits share.

    Attributes:
        trained, judged: Names of the training split and of the validation or test split.
        pictures: Number of pictures of the judged split whose file is also in the training split.
        of: Number of pictures of the judged split.
        identities: Number of identities of the judged split on shared pictures.
        example: The paths of one shared picture in both splits.
    """

    trained: str
    judged: str
    pictures: int
    of: int
    identities: int
    example: tuple[Path, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """The pictures that datasets share. Print it to see all of them.

    Attributes:
        compared: Number of pairs of splits that were compared.
        sharing: The pairs that share pictures.
        warnings: Datasets that were made from the same pictures, even if no file is equal.
    """

    compared: int
    sharing: tuple[Leak, ...]
    warnings: tuple[str, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(
            f"{leak.judged} shares {leak.pictures} of {leak.of} pictures with {leak.trained}"
            for leak in self.sharing
        )

    def __str__(self) -> str:
        if self.sharing:
            rows = [
                (
                    leak.trained,
                    leak.judged,
                    f"{leak.pictures} of {leak.of}",
                    leak.identities,
                    " = ".join(map(str, leak.example)),
                )
                for leak in self.sharing
            ]
            headers = ["trained on", "judged on", "pictures shared", "identities", "one of them"]
            table = tabulate(rows, headers=headers)
            shown = f"INVALID: a model would be judged on what it was trained on\n\n{table}"
        else:
            shown = f"no equal file in {self.compared} pairs of a training and a judged split"
        return "\n\n".join([shown, *(f"note: {warning}" for warning in self.warnings)])


def find_leaks(surveys: Sequence[Survey], *, progress: bool = True) -> Leaks:
    """Compare each training split with each validation and test split, across datasets.

    Files are compared by a hash of their bytes (BLAKE2b). A picture that was cropped or saved
    again is another file, so every leak in the result is certain, but others may be missed.

    Raises:
        DataError: A picture cannot be read.
    """
    digests = _digests(_pictures(surveys), progress)
    trained = [(s, s.splits["train"]) for s in surveys if "train" in s.splits]
    judged = [
        (survey, split)
        for survey in surveys
        for name, split in survey.splits.items()
        if name != "train"
    ]
    pairs = [(_name(*a), _name(*b), a[1], b[1]) for a in trained for b in judged]
    leaks = (_compare(*pair, digests=digests) for pair in pairs)
    return Leaks(
        compared=len(pairs),
        sharing=tuple(leak for leak in leaks if leak is not None),
        warnings=tuple(_same_pictures(surveys)),
    )


def _name(survey: Survey, split: Split) -> str:
    return f"{survey.dataset.title} {split.name}"


def _pictures(surveys: Sequence[Survey]) -> list[Path]:
    splits = [split for survey in surveys for split in survey.splits.values()]
    return list(dict.fromkeys(sample.image for split in splits for sample in split.samples))


def _digests(pictures: Sequence[Path], progress: bool) -> dict[Path, bytes]:
    with ThreadPoolExecutor(READING_THREADS) as pool:
        hashed = tqdm(
            pool.map(_digest, pictures),
            total=len(pictures),
            desc="comparing pictures",
            unit=" pictures",
            disable=not progress,
        )
        return dict(zip(pictures, hashed, strict=True))


def _digest(picture: Path) -> bytes:
    try:
        with picture.open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError as error:
        raise DataError(
            f"expected a readable picture, got {error}. Repair or remove it."
        ) from error


def _compare(
    trained_name: str, judged_name: str, trained: Split, judged: Split, digests: dict[Path, bytes]
) -> Leak | None:
    seen = {digests[sample.image]: sample.image for sample in trained.samples}
    shared = [sample for sample in judged.samples if digests[sample.image] in seen]
    if not shared:
        return None
    first = shared[0].image
    return Leak(
        trained=trained_name,
        judged=judged_name,
        pictures=len(shared),
        of=len(judged),
        identities=len(np.unique(identities(sample.pid for sample in shared))),
        example=(seen[digests[first]], first),
    )


def _same_pictures(surveys: Sequence[Survey]) -> Iterator[str]:
    for a, b in combinations((survey.dataset for survey in surveys), 2):
        sources = set(a.pictures_from) & set(b.pictures_from) if a.name != b.name else set()
        for source in sorted(sources):
            yield (
                f"{a.title} and {b.title} are both made of {source}'s pictures, under other names "
                "and ids: trained on one, a model has seen people of the other. Files that were "
                "cropped or saved again are not detected."
            )
