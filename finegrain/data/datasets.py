"""The datasets that recipes can name, with their folders and their splits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, get_args

from finegrain.data.catalog import Shares, divided, read_catalog
from finegrain.data.deepfashion_multimodal import DEEPFASHION_MULTIMODAL
from finegrain.data.everyday_captions import Wording, reworded
from finegrain.data.fashion_gen import FASHION_GEN
from finegrain.data.fashion_iq import FASHION_IQ
from finegrain.data.karpathy import FLICKR30K, MSCOCO
from finegrain.data.own_tables import Catalog, LabelledPhotos, ShopCatalog
from finegrain.data.person_datasets import (
    CUHK_PEDES,
    ICFG_PEDES,
    RSTPREID,
    UFINE6926,
    PersonDataset,
)
from finegrain.data.person_json import read_people
from finegrain.data.published_dataset import PublishedDataset
from finegrain.errors import DataError, FinegrainWarning, did_you_mean
from finegrain.records import Problem, Split
from finegrain.synthetic import write_people, write_products
from finegrain.synthetic.products import CATALOG

__all__ = [
    "Catalog",
    "CuhkPedes",
    "Dataset",
    "DeepFashionMultiModal",
    "FashionGen",
    "FashionIq",
    "Flickr30k",
    "IcfgPedes",
    "LabelledPhotos",
    "MsCoco",
    "RstpReid",
    "ShopCatalog",
    "SyntheticPeople",
    "SyntheticProducts",
    "Ufine6926",
    "dataset_named",
    "take_split",
]

JUDGED_WELL = Shares(train=0.65, val=0.05, test=0.3)
"""Shares with a large test split, because rendered products cost nothing."""


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A published dataset on disk. By default it is read only if it is complete.

    Attributes:
        known: The description of the dataset: its sizes, its layout, and where to get it.
        allow_missing: Whether missing pictures and captions are allowed.
    """

    known: ClassVar[PersonDataset | PublishedDataset]

    root: str
    allow_missing: bool = False

    def splits(self) -> Mapping[str, Split]:
        """All splits by name. A warning is shown if their sizes are not the published ones.

        Raises:
            DataError: The dataset cannot be read, a split has no picture, or something is missing
                and ``allow_missing`` is False.
        """
        splits, advice = self._read()
        _refuse_missing(splits, self.root, allow_missing=self.allow_missing, advice=advice)
        _warn_of(self.known.differences(splits))
        return splits

    def _read(self) -> tuple[Mapping[str, Split], str]:
        """The splits on disk, and advice for missing files."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _PersonSearch(_Published):
    """A person-search dataset whose annotations are a JSON list of pictures."""

    known: ClassVar[PersonDataset]

    def _read(self) -> tuple[Mapping[str, Split], str]:
        doctor = f"`finegrain doctor data {self.known.name} {self.root}` shows what is missing"
        return read_people(Path(self.root), self.known), doctor


@dataclass(frozen=True, kw_only=True)
class CuhkPedes(_PersonSearch):
    """CUHK-PEDES, or any dataset in its layout (``reid_raw.json`` and ``imgs/``)."""

    known: ClassVar[PersonDataset] = CUHK_PEDES

    root: str = "data/CUHK-PEDES"


@dataclass(frozen=True, kw_only=True)
class IcfgPedes(_PersonSearch):
    """ICFG-PEDES: one caption per picture, and no validation split."""

    known: ClassVar[PersonDataset] = ICFG_PEDES

    root: str = "data/ICFG-PEDES"


@dataclass(frozen=True, kw_only=True)
class RstpReid(_PersonSearch):
    """RSTPReid: five pictures per person, each from another camera."""

    known: ClassVar[PersonDataset] = RSTPREID

    root: str = "data/RSTPReid"


@dataclass(frozen=True, kw_only=True)
class Ufine6926(_PersonSearch):
    """UFine6926: captions of eighty words on average."""

    known: ClassVar[PersonDataset] = UFINE6926

    root: str = "data/UFine6926"


@dataclass(frozen=True, kw_only=True)
class SyntheticPeople:
    """Rendered pedestrians, written on first use in the layout of CUHK-PEDES.

    Attributes:
        root: The folder.
        train, val, test: Number of identities in each split. No identity is in two splits.
        pictures_per_identity: Pictures of each identity.
        height, width: Size of the pictures in pixels.
        wording: ``"everyday"`` replaces half of the words of training captions that have everyday
            names, such as "coat" by "trench coat". Other splits, and the files, stay plain.
        typos: Probability that a word of a training caption has two letters exchanged, if it has
            five letters or more.
    """

    root: str = "data/synthetic"
    train: int = 2000
    val: int = 100
    test: int = 600
    pictures_per_identity: int = 4
    height: int = 128
    width: int = 64
    wording: Wording = "plain"
    typos: float = 0.0
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
        splits = dict(read_people(Path(self.root), CUHK_PEDES))
        if "train" in splits:
            splits["train"] = reworded(
                splits["train"], self.wording, typos=self.typos, seed=self.seed
            )
        return splits


@dataclass(frozen=True, kw_only=True)
class SyntheticProducts:
    """Rendered garments, written on first use as a shop's catalogue. Captions are its titles.

    Attributes:
        root: The folder.
        products: Number of products in all splits.
        views: Pictures of each product.
        height, width: Size of the pictures in pixels.
        colors: Names of the colours. There are few, so that products differ by the part with a
            colour, and no colour alone identifies a product.
        worn: Whether models wear the garments together with others, as in Fashion-Gen.
        seed: Seed of the products.
        shares: Share of the products in each split.
    """

    root: str = "data/products"
    products: int = 6000
    views: int = 2
    height: int = 128
    width: int = 96
    colors: tuple[str, ...] = ("black", "white", "red", "blue", "yellow")
    worn: bool = True
    seed: int = 0
    shares: Shares = JUDGED_WELL

    def splits(self) -> Mapping[str, Split]:
        write_products(
            Path(self.root),
            products=self.products,
            views=self.views,
            seed=self.seed,
            size=(self.height, self.width),
            colors=self.colors,
            worn=self.worn,
        )
        (whole,) = read_catalog(
            Path(self.root) / CATALOG, caption_columns=("title",), pid_column="product_id"
        ).values()
        samples = tuple(
            replace(s, metadata={**s.metadata, "subcategory": s.metadata["category"]})
            for s in whole.samples
        )
        return divided({whole.name: replace(whole, samples=samples)}, self.shares)


@dataclass(frozen=True, kw_only=True)
class _Counted(_Published):
    """A dataset with a reader of its own."""

    known: ClassVar[PublishedDataset]

    def _read(self) -> tuple[Mapping[str, Split], str]:
        access = f"How to get it: {self.known.access.removesuffix('.')}"
        return self.known.read(Path(self.root)), access


@dataclass(frozen=True, kw_only=True)
class FashionGen(_Counted):
    """Fashion-Gen: several views per product, one text per picture, and no test split."""

    known: ClassVar[PublishedDataset] = FASHION_GEN

    root: str = "data/Fashion-Gen"


@dataclass(frozen=True, kw_only=True)
class FashionIq(_Counted):
    """FashionIQ: captions describe how a target differs from the reference in its metadata."""

    known: ClassVar[PublishedDataset] = FASHION_IQ

    root: str = "data/FashionIQ"


@dataclass(frozen=True, kw_only=True)
class DeepFashionMultiModal(_Counted):
    """DeepFashion-MultiModal: dressed people with captions and labelled attributes."""

    known: ClassVar[PublishedDataset] = DEEPFASHION_MULTIMODAL

    root: str = "data/DeepFashion-MultiModal"


@dataclass(frozen=True, kw_only=True)
class Flickr30k(_Counted):
    """Flickr30k in Karpathy's splits: five captions per picture, 1,000 pictures to test on."""

    known: ClassVar[PublishedDataset] = FLICKR30K

    root: str = "data/flickr30k"


@dataclass(frozen=True, kw_only=True)
class MsCoco(_Counted):
    """MS-COCO captions in Karpathy's splits: 5,000 pictures to test on."""

    known: ClassVar[PublishedDataset] = MSCOCO

    root: str = "data/mscoco"


Dataset = (
    SyntheticPeople
    | SyntheticProducts
    | CuhkPedes
    | IcfgPedes
    | RstpReid
    | Ufine6926
    | FashionGen
    | FashionIq
    | DeepFashionMultiModal
    | Flickr30k
    | MsCoco
    | Catalog
    | ShopCatalog
    | LabelledPhotos
)


def dataset_named(name: str, root: str | None = None) -> Dataset:
    """A published dataset by its name, such as ``flickr30k``.

    Args:
        name: One of the names that ``finegrain doctor data`` knows.
        root: Its folder. The default is the one of its class, ``data/...``.

    Raises:
        DataError: There is no such dataset.

    >>> dataset_named("flickr30k").root
    'data/flickr30k'
    """
    published = {
        kind.known.name: kind for kind in get_args(Dataset) if issubclass(kind, _Published)
    }
    if name not in published:
        raise DataError(
            f"expected one of the datasets {', '.join(published)}, got {name!r}"
            f"{did_you_mean(name, published)}"
        )
    dataset: Dataset = published[name]() if root is None else published[name](root=root)
    return dataset


def _refuse_missing(
    splits: Mapping[str, Split], root: str, *, allow_missing: bool, advice: str
) -> None:
    for split in splits.values():
        if not split.samples:
            raise DataError(
                f"expected pictures in split {split.name} of {root}, got none for its "
                f"{len(split.problems)} records; {split.problems[0]}. {advice}."
            )
    problems = [problem for split in splits.values() for problem in split.problems]
    if problems and not allow_missing:
        raise DataError(
            f"expected every picture and caption of {root}, got {len(problems)} records "
            f"without: {'; '.join(map(str, problems[:3]))}. {advice}; to go on without them: "
            "--set data.allow_missing=true"
        )


def _warn_of(differences: Sequence[Problem]) -> None:
    if differences:
        listed = "; ".join(map(str, differences))
        # The warning points at the caller of splits().
        warnings.warn(
            f"not comparable with published results: {listed}", FinegrainWarning, stacklevel=3
        )


def take_split(splits: Mapping[str, Split], name: str) -> Split:
    """One split by name.

    Raises:
        DataError: There is no split with that name.
    """
    if name not in splits:
        raise DataError(f"the dataset has no split {name!r}; it has {', '.join(sorted(splits))}")
    return splits[name]
