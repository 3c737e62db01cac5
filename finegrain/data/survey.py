"""Surveys a person-search dataset on disk, and finds faults that make results wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from statistics import mean, median

from tabulate import tabulate

from finegrain.data.person_datasets import SPLITS, WHOLE, Counts, PersonDataset
from finegrain.data.person_json import (
    PersonRecord,
    annotation_file,
    find_pictures,
    image_folder,
    overlapping_identities,
    read_records,
)
from finegrain.errors import DataError
from finegrain.records import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder of pictures. Its name is ``.`` for pictures outside of folders.

    Attributes:
        name: Name of the folder.
        files: Number of files on disk, at any depth.
        named: Number of records whose picture should be in the folder.
        missing: Number of these records without a picture.
    """

    name: str
    files: int
    named: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The state of a dataset on disk. Print it to see all of it.

    Attributes:
        dataset: The description of the dataset.
        root: The folder.
        file: The annotation file, or None if there is no such file.
        folders: The folders of pictures.
        splits: The splits that can be read, by name.
        overlaps: A sentence for each pair of splits that share identities.
        faults: Differences that make results wrong.
        notes: Differences from the published dataset that do not affect results.
    """

    dataset: PersonDataset
    root: Path
    file: Path | None
    splits: Mapping[str, Split]
    folders: tuple[Folder, ...]
    overlaps: tuple[str, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [
            f"{self.dataset.title} in {self.root}\n"
            f"annotations: {self.file.name if self.file else 'none'}",
            tabulate(
                [(f.name, f.files, f.named, f.missing) for f in self.folders],
                headers=["folder", "files on disk", "pictures named", "missing"],
            ),
        ]
        if self.splits:
            sizes = ["split", "", "found", "published", "difference"]
            words = ["split", "words a caption", "median", "longest"]
            parts += [
                tabulate(self._sizes(), headers=sizes),
                tabulate(self._words(), headers=words, floatfmt=".1f"),
                f"identities in two splits: {'; '.join(self.overlaps) or 'none'}",
            ]
        parts += [f"note: {note}" for note in self.notes]
        parts += [f"INVALID: {fault}" for fault in self.faults]
        parts.append(f"How to get it: {self.dataset.access}" if self.faults else "valid")
        return "\n\n".join(parts)

    def _sizes(self) -> Iterator[tuple[str, str, int, int | str, str]]:
        for name in (*SPLITS, WHOLE):
            if name not in self.splits and name not in self.dataset.published:
                continue
            chosen = self.splits.values() if name == WHOLE else self._split(name)
            counts, published = Counts.of(chosen), self.dataset.published.get(name)
            for field in fields(Counts):
                size = getattr(counts, field.name)
                if published is None:
                    yield name, field.name, size, "not stated", ""
                else:
                    wanted = getattr(published, field.name)
                    difference = f"{size - wanted:+d}" if size != wanted else "none"
                    yield name, field.name, size, wanted, difference

    def _words(self) -> Iterator[tuple[str, float, float, int]]:
        for name, split in self.splits.items():
            captions = (caption for sample in split.samples for caption in sample.captions)
            if lengths := [len(caption.split()) for caption in captions]:
                yield name, mean(lengths), median(lengths), max(lengths)

    def _split(self, name: str) -> list[Split]:
        return [self.splits[name]] if name in self.splits else []


def survey(root: Path, dataset: PersonDataset) -> Survey:
    """Survey a dataset on disk. Faults are in the result and are not raised."""
    file: Path | None = None
    records: tuple[PersonRecord, ...] = ()
    faults: list[str] = []
    try:
        file = annotation_file(root, dataset)
        if file is None:
            place = f"no {' or '.join(dataset.annotations)}" if root.is_dir() else "no such folder"
            faults.append(f"{root}: {place}")
        else:
            records = read_records(file, dataset)
            if not records:
                faults.append(f"{file} holds no records")
    except DataError as error:
        faults.append(str(error))
    splits = find_pictures(records, root, dataset)
    overlaps = overlapping_identities(records)
    notes: list[str] = []
    if records:
        faults += [*overlaps, *left_out(splits)]
        for difference in dataset.differences(splits):
            # A training split of another size does not change how a model is tested.
            train_only = difference.where == f"{dataset.title} train"
            (notes if train_only else faults).append(str(difference))
    return Survey(
        dataset=dataset,
        root=root,
        file=file,
        splits=splits,
        folders=tuple(_folders(root, dataset, records)),
        overlaps=overlaps,
        faults=tuple(faults),
        notes=tuple(notes),
    )


def left_out(splits: Mapping[str, Split]) -> Iterator[str]:
    """A sentence for each split of which records were left out."""
    for name, split in splits.items():
        if split.problems:
            yield (
                f"{name}: {len(split.problems)} pictures or captions are missing; the first: "
                f"{split.problems[0]}"
            )


def _folders(
    root: Path, dataset: PersonDataset, records: Sequence[PersonRecord]
) -> Iterator[Folder]:
    pictures = image_folder(root, dataset)
    named: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for record in records:
        first, *rest = PurePosixPath(record.path).parts or (".",)
        name = first if rest else "."
        named[name] += 1
        try:
            pictures.find(record.path)
        except DataError:
            missing[name] += 1
    on_disk = _files_by_folder(root, dataset)
    for name in sorted(named.keys() | set(dataset.folders)):
        yield Folder(
            name=name, files=on_disk.get(name, 0), named=named[name], missing=missing[name]
        )


def _files_by_folder(root: Path, dataset: PersonDataset) -> dict[str, int]:
    """Files in each folder of the first image root that exists, at any depth."""
    images = next((root / name for name in dataset.image_roots if (root / name).is_dir()), None)
    if images is None:
        return {}
    # Names come from the disk, so that no name in the annotations can lead out of the folder.
    counts = {
        entry.name: sum(len(files) for _, _, files in os.walk(entry.path))
        for entry in os.scandir(images)
        if entry.is_dir()
    }
    counts["."] = sum(entry.is_file() for entry in os.scandir(images))
    return counts
