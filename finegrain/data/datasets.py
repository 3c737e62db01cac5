"""Datasets as recipes name them: where they lie and how they become splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finegrain.data.catalog import read_catalog
from finegrain.data.cuhk_pedes import read_cuhk_pedes
from finegrain.data.labelled_photos import read_labelled_photos
from finegrain.data.synthetic import write_people
from finegrain.errors import DataError
from finegrain.records import Split


@dataclass(frozen=True, kw_only=True)
class CuhkPedes:
    """CUHK-PEDES, or any dataset in its layout (``reid_raw.json`` and ``imgs/``)."""

    root: str = "data/CUHK-PEDES"

    def splits(self) -> Mapping[str, Split]:
        return read_cuhk_pedes(Path(self.root))


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
        return read_cuhk_pedes(Path(self.root))


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


Dataset = SyntheticPeople | CuhkPedes | Catalog | LabelledPhotos


def take_split(dataset: Dataset, name: str) -> Split:
    """One split of a dataset.

    Raises:
        DataError: The dataset has no such split.
    """
    splits = dataset.splits()
    if name not in splits:
        raise DataError(
            f"{type(dataset).__name__} has no split {name!r}; it has {', '.join(sorted(splits))}"
        )
    return splits[name]
