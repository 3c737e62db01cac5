"""Reader of DeepFashion-MultiModal: dressed people with captions and labelled attributes."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finegrain.data.pictures import PictureFolder
from finegrain.data.published_dataset import PublishedDataset, read_annotations
from finegrain.errors import DataError
from finegrain.records import Problem, Sample, Scalar, Split

IMAGE_ROOTS = ("images", "image", ".")

Labels = tuple[tuple[str, tuple[str | None, ...]], ...]

_FABRICS = ("denim", "cotton", "leather", "furry", "knitted", "chiffon", "other")
_PATTERNS = ("floral", "graphic", "striped", "pure color", "lattice", "other", "color block")
_NO_YES = ("no", "yes")

# The name and the meaning of the numbers of each column of a file. The number after the last one
# means "not visible".
LABELS: Mapping[str, Labels] = {
    "shape": (
        ("sleeves", ("sleeveless", "short", "medium", "long", "not long")),
        ("lower_length", ("three-point", "medium short", "three-quarter", "long")),
        ("socks", ("no", "socks", "leggings")),
        ("hat", _NO_YES),
        ("glasses", ("no", "eyeglasses", "sunglasses", "in hand or clothes")),
        ("neckwear", _NO_YES),
        ("wristwear", _NO_YES),
        ("ring", _NO_YES),
        ("waist_accessory", ("no", "belt", "clothing", "hidden")),
        # No label has the number 3.
        ("neckline", ("V-shape", "square", "round", None, "standing", "lapel", "suspenders")),
        ("cardigan", ("yes", "no")),
        ("covers_navel", _NO_YES),
    ),
    "fabric": tuple((f"{part}_material", _FABRICS) for part in ("upper", "lower", "outer")),
    "pattern": tuple((f"{part}_pattern", _PATTERNS) for part in ("upper", "lower", "outer")),
}

SHARES = (("val", 10), ("test", 20))
"""Split to the percentile below which a product belongs to it; the others are ``train``."""

_ACCESS = (
    "https://github.com/yumingj/DeepFashion-MultiModal links images, labels and captions, "
    "for research that is not commercial."
)

# MEN-Denim-id_00000080-01_7_additional.jpg; the in-shop original has slashes instead of dashes.
_NAME = re.compile(
    r"(?P<gender>MEN|WOMEN)-(?P<category>.+)-id_(?P<product>\d+-\d+)_\d+_(?P<view>\w+)\.\w+"
)


def read_deepfashion_multimodal(root: Path) -> dict[str, Split]:
    """Read pictures, captions and attributes.

    Captions are made from the attributes, so many pictures have nearly the same one. They suit
    training, but do not test the search for a single picture. The dataset publishes no splits.
    Here products are split by a hash, 80 % for training, the same on every machine.

    Args:
        root: Folder with ``captions.json``, ``labels/`` and ``images/``.

    Returns:
        ``train``, ``val`` and ``test``. The name of a picture gives its ``gender``, ``category``,
        ``view`` and product. Views of a product share a pid. Attributes that are not visible or
        not labelled are None.

    Raises:
        DataError: The captions are missing or do not follow the format.
    """
    captions = _load(root / "captions.json")
    labels, broken = _labels(root / "labels")
    folder = PictureFolder(*(root / name for name in IMAGE_ROOTS))
    samples: dict[str, list[Sample]] = defaultdict(list)
    problems: dict[str, list[Problem]] = defaultdict(list)
    problems["train"] += broken
    pids: dict[str, int] = {}
    for name, caption in captions.items():
        key, split, about = _about(name)
        try:
            if not isinstance(caption, str) or not caption.strip():
                raise DataError(f"expected a caption, got {caption!r:.60}")
            image = folder.find(name)
        except DataError as error:
            problems[split].append(Problem(where=f"captions.json {name!r:.80}", why=str(error)))
            continue
        samples[split].append(
            Sample(
                image=image,
                captions=(caption.strip(),),
                pid=pids.setdefault(key, len(pids)),
                metadata=about | labels.get(name, {}),
            )
        )
    return {
        name: Split(name=name, samples=tuple(samples[name]), problems=tuple(problems[name]))
        for name in ("train", "val", "test")
        if samples[name] or problems[name]
    }


def _about(name: str) -> tuple[str, str, dict[str, Scalar]]:
    """The product, the split and the metadata of a picture, from its name."""
    match = _NAME.fullmatch(name.rpartition("/")[2])
    if match is None:
        return name, _split_of(name), {}
    key = f"{match['gender']}-{match['category']}-{match['product']}"
    return (
        key,
        _split_of(key),
        {
            "product_id": key,
            "gender": match["gender"].lower(),
            "category": match["category"].replace("_", " "),
            "subcategory": f"{match['gender']} {match['category'].replace('_', ' ')}".lower(),
            "view": match["view"],
        },
    )


def _split_of(product: str) -> str:
    percentile = int.from_bytes(hashlib.sha256(product.encode()).digest()[:8], "big") % 100
    return next((name for name, share in SHARES if percentile < share), "train")


def _load(file: Path) -> Mapping[str, Any]:
    content = read_annotations(file, f"How to get it: {_ACCESS}")
    if not isinstance(content, dict) or not content:
        raise DataError(f"expected captions by picture in {file}, got {content!r:.60}.")
    return content


def _labels(folder: Path) -> tuple[dict[str, dict[str, Scalar]], list[Problem]]:
    """Attributes by picture, and a problem per invalid line."""
    attributes: dict[str, dict[str, Scalar]] = defaultdict(dict)
    problems = []
    for file in sorted(folder.rglob("*.txt")):
        # Copies differ in folders: shape/shape_anno_all.txt, texture/fabric_ann.txt.
        within = str(file.relative_to(folder))
        kind = next((name for name in LABELS if name in within), None)
        if kind is None:
            continue
        for where, line in _lines(file):
            try:
                attributes[line[0]] |= _attributes(line[1:], LABELS[kind])
            except DataError as error:
                problems.append(Problem(where=where, why=str(error)))
    return attributes, problems


def _lines(file: Path) -> Iterator[tuple[str, list[str]]]:
    with file.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            if cells := line.split():
                yield f"{file.name}:{number}", cells


def _attributes(cells: list[str], labels: Labels) -> dict[str, Scalar]:
    if len(cells) != len(labels):
        raise DataError(f"has {len(cells)} labels, expected {len(labels)}")
    attributes: dict[str, Scalar] = {}
    for cell, (name, meanings) in zip(cells, labels, strict=True):
        if not re.fullmatch("[0-9]{1,2}", cell) or int(cell) > len(meanings):
            raise DataError(f"expected {name} from 0 to {len(meanings)}, got {cell!r:.20}")
        attributes[name] = meanings[int(cell)] if int(cell) < len(meanings) else None
    return attributes


# Jiang et al., "Text2Human: Text-Driven Controllable Human Image Generation", SIGGRAPH 2022.
DEEPFASHION_MULTIMODAL = PublishedDataset(
    name="deepfashion_multimodal",
    title="DeepFashion-MultiModal",
    published={"pictures": 44096},
    count=lambda splits: {"pictures": sum(map(len, splits.values()))},
    read=read_deepfashion_multimodal,
    access=_ACCESS,
)
