"""A handful of made-up people in the exact layout of each person-search dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.data.person_datasets import (
    CUHK_PEDES,
    ICFG_PEDES,
    RSTPREID,
    UFINE6926,
    PersonDataset,
)
from finegrain.data.synthetic.captions import captions_of, words
from finegrain.data.synthetic.jpeg import write_jpeg
from finegrain.data.synthetic.person import identities as draw_identities
from finegrain.data.synthetic.render import render
from finegrain.data.synthetic.view import view_of
from finegrain.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What a record tells.

    Attributes:
        number: Of the picture, from 0, over the whole dataset.
        picture: Of the picture among its person's, from 0.
    """

    split: str
    pid: int
    number: int
    picture: int
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Schema:
    """How a dataset numbers people, names pictures and orders the fields of a record.

    Attributes:
        held_out: Splits other than ``train``.
        pictures: Of each person.
        captions: Of each picture.
    """

    held_out: tuple[str, ...]
    first_pid: int
    pictures: int
    captions: int
    path: Callable[[_Entry], str]
    fields: tuple[str, ...]


_SCHEMAS: Mapping[str, _Schema] = {
    CUHK_PEDES.name: _Schema(
        held_out=("val", "test"),
        first_pid=1,
        pictures=3,
        captions=2,
        path=lambda entry: (
            f"{CUHK_PEDES.folders[entry.number % len(CUHK_PEDES.folders)]}"
            f"/{entry.pid:05d}_{entry.picture}.jpg"
        ),
        fields=("split", "captions", "file_path", "processed_tokens", "id"),
    ),
    ICFG_PEDES.name: _Schema(
        held_out=("test",),
        first_pid=0,
        pictures=3,
        captions=1,
        # MSMT17's folders and names, which say nothing about this dataset's splits.
        path=lambda entry: (
            f"{ICFG_PEDES.folders[entry.pid % 2]}/{entry.pid:04d}/{entry.pid:04d}"
            f"_{entry.picture:03d}_{entry.picture + 1:02d}_0303morning_{entry.number:04d}_0.jpg"
        ),
        fields=("split", "captions", "file_path", "processed_tokens", "id"),
    ),
    RSTPREID.name: _Schema(
        held_out=("val", "test"),
        first_pid=0,
        pictures=5,
        captions=2,
        path=lambda entry: f"{entry.pid:04d}_c{entry.picture + 1}_{entry.number:04d}.jpg",
        fields=("id", "img_path", "captions", "split"),
    ),
    UFINE6926.name: _Schema(
        held_out=("test",),
        first_pid=1,
        pictures=4,
        captions=2,
        path=lambda entry: f"images/{entry.number + 1}.jpg",
        fields=("split", "id", "file_path", "captions"),
    ),
}


def write_fixture(
    dataset: PersonDataset, root: Path, *, identities: int = 6, seed: int = 0
) -> Path:
    """Draw people into a new folder as if it were a copy of a dataset.

    Args:
        dataset: Whose annotations, folders, names and numbers are imitated.
        root: A folder that is not there yet, or empty.
        identities: How many people; about a sixth are in each split other than ``train``.
        seed: Of the people and their captions.

    Returns:
        ``root``.

    Raises:
        DataError: ``root`` holds something, or there are too few people for the splits.
    """
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise DataError(f"expected an empty folder at {root}, found something. Give another.")
    schema = _SCHEMAS[dataset.name]
    images = root / dataset.image_roots[0]
    for name in dataset.folders:
        (images / name).mkdir(parents=True, exist_ok=True)
    records = [_record(entry, schema) for entry in _draw(schema, images, identities, seed)]
    (root / dataset.annotations[0]).write_text(json.dumps(records), encoding="utf-8")
    return root


def _draw(schema: _Schema, images: Path, count: int, seed: int) -> Iterator[_Entry]:
    """Every record, its picture written."""
    people = draw_identities(count, seed=seed)
    number = 0
    for index, split in enumerate(_splits(schema.held_out, count)):
        for picture in range(schema.pictures):
            view = view_of(people[index], picture, seed=seed)
            captions = captions_of(people[index], view, picture, count=schema.captions, seed=seed)
            entry = _Entry(
                split=split,
                pid=schema.first_pid + index,
                number=number,
                picture=picture,
                captions=tuple(caption.text for caption in captions),
            )
            write_jpeg(images / schema.path(entry), render(people[index].person, view))
            yield entry
            number += 1


def _splits(held_out: Sequence[str], count: int) -> list[str]:
    """The split of each person, in the order train, val, test."""
    each = max(1, count // 6)
    train = count - each * len(held_out)
    if train < 1:
        raise DataError(f"identities: expected at least {len(held_out) + 1}, got {count}.")
    return ["train"] * train + [name for name in held_out for _ in range(each)]


def _record(entry: _Entry, schema: _Schema) -> dict[str, Any]:
    path = schema.path(entry)
    values: dict[str, Any] = {
        "split": entry.split,
        "id": entry.pid,
        "file_path": path,
        "img_path": path,
        "captions": list(entry.captions),
        "processed_tokens": [words(caption) for caption in entry.captions],
    }
    return {name: values[name] for name in schema.fields}
