"""Reader of person-search datasets: a JSON list of pictures with their captions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from finegrain.data.person_datasets import SPLITS, PersonDataset
from finegrain.data.pictures import PictureFolder
from finegrain.errors import DataError
from finegrain.records import Problem, Sample, Split

PATH_FIELDS = ("file_path", "img_path")
SHOWN = 5
"""The most items of a list that a message shows."""

_MAX_BYTES = 1 << 30
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonRecord:
    """One entry of the annotations. Its picture may be missing.

    Attributes:
        where: File and number of the entry, from 1.
        path: Path of the picture, relative to one of the image roots.
        captions: The captions, including blank ones.
    """

    where: str
    split: str
    path: str
    pid: int
    captions: tuple[str, ...]


def read_people(root: Path, dataset: PersonDataset) -> dict[str, Split]:
    """Read all splits of a dataset.

    Copies of a dataset may differ in the name of the annotation file, ``img_path`` instead of
    ``file_path``, ids with gaps or from 0, more captions per picture, no validation split, and
    missing folders. Ids are returned as they are; a classifier has to number them.

    Args:
        root: Folder of the dataset.
        dataset: The description of the dataset.

    Returns:
        The splits by name, in the order train, val, test, without those that are missing. Missing
        pictures and blank captions are left out, and are among the split's problems.

    Raises:
        DataError: There is no annotation file, it does not follow the format, an identity is in
            two splits, or none of the pictures exists.
    """
    file = annotation_file(root, dataset)
    if file is None:
        raise DataError(
            f"expected {' or '.join(dataset.annotations)} in {root}, found none. Point at the "
            f"folder that holds the annotations of {dataset.title} and its pictures. "
            f"{_advice(root, dataset)}"
        )
    records = read_records(file, dataset)
    if overlaps := overlapping_identities(records):
        raise DataError(f"{file}: {'; '.join(overlaps)}. Take an unchanged copy of it.")
    splits = find_pictures(records, root, dataset)
    if not any(splits.values()):
        first = next((split.problems[0] for split in splits.values()), "it holds no records")
        raise DataError(
            f"expected pictures for the records of {file}, got none of them; {first}. "
            f"Unpack the pictures there. {_advice(root, dataset)}"
        )
    return splits


def annotation_file(root: Path, dataset: PersonDataset) -> Path | None:
    """The dataset's annotation file, or None if there is no such file.

    Raises:
        DataError: Several files match.
    """
    for name in dataset.annotations:
        files = sorted(path for path in root.glob(name) if path.is_file())
        if len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise DataError(f"expected one annotation file in {root}, found {names}. Leave one.")
        if files:
            return files[0]
    return None


def read_records(file: Path, dataset: PersonDataset) -> tuple[PersonRecord, ...]:
    """All records of an annotation file, in the order of the file.

    Raises:
        DataError: The file, or a record of it, does not follow the format.
    """
    entries = _load(file)
    # Records are split by position only if no record names a split. If some do, a record without
    # a split is damaged.
    by_place = dataset.in_order and not any(
        isinstance(entry, dict) and "split" in entry for entry in entries
    )
    return tuple(
        _parse(
            entry,
            f"{file.name} record {index + 1}",
            dataset.published_split(index) if by_place else None,
        )
        for index, entry in enumerate(entries)
    )


def overlapping_identities(records: Sequence[PersonRecord]) -> tuple[str, ...]:
    """A sentence for each pair of splits that share identities."""
    pids = {name: {record.pid for record in records if record.split == name} for name in SPLITS}
    overlaps = []
    for first, second in combinations(SPLITS, 2):
        if shared := sorted(pids[first] & pids[second]):
            ids = ", ".join(map(str, shared[:SHOWN])) + (", …" if len(shared) > SHOWN else "")
            overlaps.append(
                f"expected {first} and {second} to have no identity in common, "
                f"got {len(shared)}: {ids}"
            )
    return tuple(overlaps)


def find_pictures(
    records: Sequence[PersonRecord], root: Path, dataset: PersonDataset
) -> dict[str, Split]:
    """Make splits from records and the pictures on disk; see :func:`read_people`."""
    folder = image_folder(root, dataset)
    samples: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    problems: dict[str, list[Problem]] = {name: [] for name in SPLITS}
    for record in records:
        captions = tuple(caption for caption in record.captions if caption.strip())
        if len(captions) < max(1, len(record.captions)):
            why = "has a blank caption" if captions else "has no caption"
            problems[record.split].append(Problem(where=record.where, why=why))
        if not captions:
            continue
        try:
            image = folder.find(record.path)
        except DataError as error:
            problems[record.split].append(Problem(where=record.where, why=str(error)))
            continue
        samples[record.split].append(
            Sample(
                image=image,
                captions=captions,
                pid=record.pid,
                camera=_camera(record.path, dataset.camera),
            )
        )
    return {
        name: Split(name=name, samples=tuple(samples[name]), problems=tuple(problems[name]))
        for name in SPLITS
        if samples[name] or problems[name]
    }


def image_folder(root: Path, dataset: PersonDataset) -> PictureFolder:
    """The folder that finds the pictures of a dataset."""
    return PictureFolder(*(root / name for name in dataset.image_roots))


def _advice(root: Path, dataset: PersonDataset) -> str:
    return (
        f"How to get it: {dataset.access} "
        f"What is there, and what is missing: finegrain doctor data {dataset.name} {root}"
    )


def _load(file: Path) -> list[Any]:
    if file.stat().st_size > _MAX_BYTES:
        raise DataError(f"expected {file} to be smaller than 1 GB. Is it the right file?")
    try:
        entries = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected JSON in {file}, could not read it: {error}.") from error
    if not isinstance(entries, list):
        raise DataError(f"expected a list of records in {file}, got {type(entries).__name__}.")
    return entries


def _parse(entry: Any, where: str, split: str | None) -> PersonRecord:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object, got {type(entry).__name__}.")
    if split is None:
        split = _field(entry, "split", str, where).strip().lower()
    if split not in SPLITS:
        raise DataError(f"{where}: expected split to be train, val or test, got {split!r}.")
    path_field = next((name for name in PATH_FIELDS if name in entry), PATH_FIELDS[0])
    captions = _field(entry, "captions", list, where)
    for caption in captions:
        if not isinstance(caption, str):
            raise DataError(f"{where}: expected captions as text, got {caption!r:.60}.")
    return PersonRecord(
        where=where,
        split=split,
        path=_field(entry, path_field, str, where),
        pid=_field(entry, "id", int, where),
        captions=tuple(captions),
    )


def _field(entry: dict[str, Any], name: str, kind: type[_T], where: str) -> _T:
    if name not in entry:
        raise DataError(
            f"{where}: expected a field {name!r}, found {', '.join(map(repr, entry))}. "
            "Take an annotation file whose every record has it."
        )
    value = entry[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: expected {name} as {kind.__name__}, got {value!r:.60}.")
    return value


def _camera(path: str, pattern: str | None) -> str | None:
    match = re.match(pattern, str(PurePosixPath(path))) if pattern else None
    return match[1] if match else None
