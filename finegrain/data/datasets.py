"""Datasets as recipes name them: where they lie and how they become splits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from finegrain.data.catalog import read_catalog
from finegrain.data.labelled_photos import read_labelled_photos
from finegrain.data.person_datasets import (
    CUHK_PEDES,
    ICFG_PEDES,
    RSTPREID,
    UFINE6926,
    PersonDataset,
)
from finegrain.data.person_json import read_people
from finegrain.data.synthetic import write_people
from finegrain.errors import DataError
from finegrain.records import Split


@dataclass(frozen=True, kw_only=True)
class _PersonSearch:
    """A person-search dataset on disk, read whole or not at all.

    Attributes:
        known: Names of its files, its published size, how to get it.
        allow_missing: Go on without the pictures and captions that are missing.
    """

    known: ClassVar[PersonDataset]

    root: str
    allow_missing: bool = False

    def splits(self) -> Mapping[str, Split]:
        """All splits, with a warning where their sizes are not the published ones.

        Raises:
            DataError: The dataset cannot be read, a split is left with no picture, or
                something is missing and ``allow_missing`` is False.
        """
        splits = read_people(Path(self.root), self.known)
        doctor = f"`finegrain doctor data {self.known.name} {self.root}` shows what is missing"
        for split in splits.values():
            if not split.samples:
                raise DataError(
                    f"expected pictures in split {split.name} of {self.root}, got none for its "
                    f"{len(split.problems)} records; {split.problems[0]}. {doctor}."
                )
        problems = [problem for split in splits.values() for problem in split.problems]
        if problems and not self.allow_missing:
            raise DataError(
                f"expected every picture and caption of {self.root}, got {len(problems)} records "
                f"without: {'; '.join(map(str, problems[:3]))}. {doctor}; to go on without them: "
                "--set data.allow_missing=true"
            )
        differences = self.known.differences(splits)
        if differences:
            told = "; ".join(map(str, differences))
            warnings.warn(f"not comparable with published results: {told}", stacklevel=2)
        return splits


@dataclass(frozen=True, kw_only=True)
class CuhkPedes(_PersonSearch):
    """CUHK-PEDES, or any dataset in its layout (``reid_raw.json`` and ``imgs/``)."""

    known: ClassVar[PersonDataset] = CUHK_PEDES

    root: str = "data/CUHK-PEDES"


@dataclass(frozen=True, kw_only=True)
class IcfgPedes(_PersonSearch):
    """ICFG-PEDES: one caption a picture, and no validation split."""

    known: ClassVar[PersonDataset] = ICFG_PEDES

    root: str = "data/ICFG-PEDES"


@dataclass(frozen=True, kw_only=True)
class RstpReid(_PersonSearch):
    """RSTPReid: five pictures a person, each by another camera."""

    known: ClassVar[PersonDataset] = RSTPREID

    root: str = "data/RSTPReid"


@dataclass(frozen=True, kw_only=True)
class Ufine6926(_PersonSearch):
    """UFine6926: captions of eighty words on average."""

    known: ClassVar[PersonDataset] = UFINE6926

    root: str = "data/UFine6926"


@dataclass(frozen=True, kw_only=True)
class SyntheticPeople:
    """Rendered pedestrians, drawn on first use into CUHK-PEDES' layout.

    Attributes:
        train, val, test: Identities in each split; nobody is in two of them.
        height, width: Size of the pictures.
    """

    root: str = "data/synthetic"
    train: int = 2000
    val: int = 100
    test: int = 600
    pictures_per_identity: int = 4
    height: int = 128
    width: int = 64
    seed: int = 0

    def splits(self) -> Mapping[str, Split]:
        write_people(
            Path(self.root),
            identities=self.train + self.val + self.test,
            splits={"train": self.train, "val": self.val, "test": self.test},
            pictures_per_identity=self.pictures_per_identity,
            size=(self.height, self.width),
            seed=self.seed,
        )
        return read_people(Path(self.root), CUHK_PEDES)


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A table of pictures and captions: CSV, Parquet or JSON lines.

    Attributes:
        table: The file; picture paths are relative to its folder.
        split_column: Column that says ``train``, ``val`` or ``test``.
    """

    table: str = "data/catalog.csv"
    image_column: str = "image"
    caption_columns: tuple[str, ...] = ("caption",)
    pid_column: str | None = None
    split_column: str | None = None

    def splits(self) -> Mapping[str, Split]:
        return read_catalog(
            Path(self.table),
            image_column=self.image_column,
            caption_columns=self.caption_columns,
            pid_column=self.pid_column,
            split_column=self.split_column,
        )


@dataclass(frozen=True, kw_only=True)
class LabelledPhotos:
    """Photographs with a class label each; captions are made of it and the measured colour."""

    root: str = "data/clothing"
    table: str = "labels.csv"

    def splits(self) -> Mapping[str, Split]:
        return read_labelled_photos(Path(self.root) / self.table)


Dataset = SyntheticPeople | CuhkPedes | IcfgPedes | RstpReid | Ufine6926 | Catalog | LabelledPhotos


def take_split(splits: Mapping[str, Split], name: str) -> Split:
    """One split by name.

    Raises:
        DataError: There is none of that name.
    """
    if name not in splits:
        raise DataError(f"the dataset has no split {name!r}; it has {', '.join(sorted(splits))}")
    return splits[name]
