"""Reader of FashionIQ: triplets of a reference, captions of the change, and a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finegrain.data.pictures import PictureFolder
from finegrain.data.published_dataset import PublishedDataset, read_annotations
from finegrain.errors import DataError
from finegrain.records import Problem, Sample, Split

CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("train", "val")
"""The splits with published targets. The test split has only queries."""

IMAGE_ROOTS = ("images", "resized_image", "image_data", ".")
ENDINGS = (".jpg", ".png", ".jpeg")

_ACCESS = (
    "clone https://github.com/XiaoxiaoGuo/fashion-iq for captions/ and image_splits/, and "
    "download the pictures into images/; many of their URLs are dead."
)

GalleryKind = Literal["split", "union"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FashionIqGallery:
    """The pictures that a category's queries search.

    Attributes:
        kind: ``split`` has all pictures that the dataset lists for the split. ``union`` has only
            the references and targets of its queries (Chen et al., "VAL", CVPR 2020). It is
            smaller, so recalls of the two kinds are not comparable.
        named: Number of pictures in the dataset's lists.
        images: Name to path of the pictures on disk.
    """

    category: str
    split: str
    kind: GalleryKind
    named: int
    images: Mapping[str, Path]

    def __str__(self) -> str:
        return (
            f"FashionIQ {self.category} {self.split}, {self.kind} gallery: "
            f"{len(self.images):,} pictures"
            + (f" of {self.named:,}; the rest is missing" * (len(self.images) < self.named))
        )


def read_fashion_iq(root: Path) -> dict[str, Split]:
    """Read the triplets of all categories whose target is published.

    A sample is a target with captions that describe how it differs from a reference. Its
    metadata have the ``category``, the ids of the ``target`` and the ``reference``, and the path
    of the reference as ``reference_image``.

    Args:
        root: Folder with ``captions/``, ``image_splits/`` and the pictures.

    Returns:
        ``train`` and ``val``, if their files exist. Triplets with a missing picture and captions
        without words are problems.

    Raises:
        DataError: There are no captions, or a file does not follow the format.
    """
    find = _Pictures(root)
    pids: dict[str, int] = {}
    splits = {}
    for split in SPLITS:
        samples: list[Sample] = []
        problems: list[Problem] = []
        files = [(category, _captions_file(root, category, split)) for category in CATEGORIES]
        for category, file in ((name, path) for name, path in files if path.is_file()):
            for where, triplet in _triplets(file):
                try:
                    samples.append(_sample(triplet, category, find, pids))
                except DataError as error:
                    problems.append(Problem(where=where, why=str(error)))
        if samples or problems:
            splits[split] = Split(name=split, samples=tuple(samples), problems=tuple(problems))
    if not splits:
        raise DataError(
            f"expected captions/cap.CATEGORY.SPLIT.json in {root}, found none. "
            f"How to get it: {_ACCESS}"
        )
    return splits


def read_gallery(root: Path, category: str, split: str, kind: GalleryKind) -> FashionIqGallery:
    """The gallery of one category, without missing pictures.

    Raises:
        DataError: Its list or its captions are missing or do not follow the format.
    """
    if kind == "split":
        names = _load_list(root / "image_splits" / f"split.{category}.{split}.json")
    else:
        triplets = [triplet for _, triplet in _triplets(_captions_file(root, category, split))]
        names = [triplet.get(key) for triplet in triplets for key in ("candidate", "target")]
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"expected names of pictures for {category} {split}, got something else.")
    find = _Pictures(root)
    unique = list(dict.fromkeys(names))
    images = {name: path for name in unique if (path := find.get(name)) is not None}
    return FashionIqGallery(
        category=category, split=split, kind=kind, named=len(unique), images=images
    )


class _Pictures:
    """Finds pictures by their id, with any ending."""

    def __init__(self, root: Path) -> None:
        folders = [root / name for name in IMAGE_ROOTS]
        # Some copies have a folder for each category.
        folders += [folder / category for folder in folders for category in CATEGORIES]
        self._folder = PictureFolder(*folders)
        self._root = root

    def get(self, name: str) -> Path | None:
        for ending in ENDINGS:
            try:
                return self._folder.find(name + ending)
            except DataError:
                continue
        return None

    def find(self, name: Any) -> Path:
        if not isinstance(name, str) or (path := self.get(name)) is None:
            raise DataError(f"its picture {name!r:.60} not found under {self._root}")
        return path


def _sample(
    triplet: Mapping[str, Any], category: str, pictures: _Pictures, pids: dict[str, int]
) -> Sample:
    texts = triplet.get("captions")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"expected a list of captions, got {texts!r:.60}")
    captions = tuple(text.strip() for text in texts if text.strip())
    if not captions:
        raise DataError("has no caption")
    reference, target = triplet.get("candidate"), triplet.get("target")
    reference_image, image = pictures.find(reference), pictures.find(target)
    return Sample(
        image=image,
        captions=captions,
        pid=pids.setdefault(str(target), len(pids)),
        metadata={
            "category": category,
            "reference": reference,
            "target": target,
            "reference_image": str(reference_image),
        },
    )


def _captions_file(root: Path, category: str, split: str) -> Path:
    return root / "captions" / f"cap.{category}.{split}.json"


def _triplets(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, entry in enumerate(_load_list(file), start=1):
        where = f"{file.name} record {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: expected an object, got {type(entry).__name__}.")
        yield where, entry


def _load_list(file: Path) -> list[Any]:
    content = read_annotations(file, _ACCESS)
    if not isinstance(content, list):
        raise DataError(f"expected a list in {file}, got {type(content).__name__}.")
    return content


def _count(splits: Mapping[str, Split]) -> Mapping[str, int]:
    return Counter(
        f"{name} {sample.metadata['category']} triplets"
        for name, split in splits.items()
        for sample in split.samples
    )


# Wu et al., "Fashion IQ: A New Dataset Towards Retrieving Images by Natural Language
# Feedback", CVPR 2021.
FASHION_IQ = PublishedDataset(
    name="fashion_iq",
    title="FashionIQ",
    published={
        "train dress triplets": 5985,
        "train shirt triplets": 5988,
        "train toptee triplets": 6027,
        "val dress triplets": 2017,
        "val shirt triplets": 2038,
        "val toptee triplets": 1961,
    },
    count=_count,
    read=read_fashion_iq,
    access=_ACCESS,
)
