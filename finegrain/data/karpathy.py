"""Reader of Flickr30k and MS-COCO captions in the splits of Karpathy and Fei-Fei.

The splits are those of "Deep Visual-Semantic Alignments for Generating Image Descriptions", CVPR
2015, https://arxiv.org/abs/1412.2306. Published zero-shot results of CLIP models are measured on
their test splits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finegrain.data.pictures import PictureFolder
from finegrain.data.published_dataset import PublishedDataset, read_annotations
from finegrain.errors import DataError
from finegrain.records import Problem, Sample, Split

SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
"""A record's split to ours. ``restval`` are pictures of COCO's validation set that papers add to
the training split."""

_MAX_BYTES = 1 << 30


def read_karpathy(root: Path, *, annotations: str, access: str) -> dict[str, Split]:
    """Read all splits. Each picture is an identity of its own.

    Args:
        root: Folder with the annotation file and the pictures. Pictures may be directly in it, in
            ``images/``, in ``flickr30k-images/``, or in the folders that the records name.
        annotations: Name of the annotation file.
        access: How to get the dataset, for errors.

    Returns:
        ``train``, ``val`` and ``test``, without those that are missing.

    Raises:
        DataError: The annotation file cannot be read or does not follow the format.
    """
    file = root / annotations
    folder = PictureFolder(root, root / "images", root / "flickr30k-images")
    samples: dict[str, list[Sample]] = defaultdict(list)
    problems: dict[str, list[Problem]] = defaultdict(list)
    for number, record in enumerate(_records(file, access), start=1):
        where = f"{file.name} record {number}"
        split, name, captions = _parse(record, where)
        if not captions:
            problems[split].append(Problem(where=where, why="has no caption"))
            continue
        try:
            image = folder.find(name)
        except DataError as error:
            problems[split].append(Problem(where=where, why=str(error)))
            continue
        samples[split].append(Sample(image=image, captions=captions, pid=None))
    return {
        name: Split(name=name, samples=tuple(samples[name]), problems=tuple(problems[name]))
        for name in dict.fromkeys(SPLITS.values())
        if samples[name] or problems[name]
    }


def _records(file: Path, access: str) -> list[Any]:
    if file.is_file() and file.stat().st_size > _MAX_BYTES:
        raise DataError(f"expected {file} to be smaller than 1 GB. Is it the right file?")
    content = read_annotations(file, f"How to get it: {access}")
    records = content.get("images") if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise DataError(f"expected a list 'images' in {file}, got {content!r:.60}.")
    return records


def _parse(record: Any, where: str) -> tuple[str, str, tuple[str, ...]]:
    """The split, the path of the picture and the captions of a record."""
    try:
        split = SPLITS[record["split"]]
        name = "/".join(part for part in (record.get("filepath"), record["filename"]) if part)
        captions = tuple(str(sentence["raw"]).strip() for sentence in record["sentences"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: expected split, filename and sentences with raw texts, got {record!r:.80}."
        ) from error
    return split, name, tuple(caption for caption in captions if caption)


def _counts(splits: Mapping[str, Split]) -> dict[str, int]:
    return {
        f"{name} {what}": count
        for name, split in splits.items()
        for what, count in (
            ("pictures", len(split.samples)),
            ("captions", sum(len(sample.captions) for sample in split.samples)),
        )
    }


def _dataset(
    name: str, title: str, annotations: str, published: Mapping[str, int], pictures_from: str
) -> PublishedDataset:
    access = (
        f"{annotations} is in caption_datasets.zip, which "
        f"https://cs.stanford.edu/people/karpathy/deepimagesent links; {pictures_from}"
    )
    return PublishedDataset(
        name=name,
        title=title,
        published=published,
        count=_counts,
        read=lambda root: read_karpathy(root, annotations=annotations, access=access),
        access=access,
    )


FLICKR30K = _dataset(
    "flickr30k",
    "Flickr30k",
    "dataset_flickr30k.json",
    {
        "train pictures": 29000,
        "train captions": 145000,
        "val pictures": 1014,
        "val captions": 5070,
        "test pictures": 1000,
        "test captions": 5000,
    },
    "the pictures are sent by https://shannon.cs.illinois.edu/DenotationGraph on request.",
)

MSCOCO = _dataset(
    "mscoco",
    "MS-COCO captions",
    "dataset_coco.json",
    {
        "train pictures": 113287,
        "train captions": 566747,
        "val pictures": 5000,
        "val captions": 25010,
        "test pictures": 5000,
        "test captions": 25010,
    },
    "the pictures are train2014 and val2014 of https://cocodataset.org.",
)
