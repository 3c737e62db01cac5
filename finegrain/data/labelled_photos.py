"""Photographs with one class label each, and captions made of what can be measured in them."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from finegrain.data.colors import COLORS, dominant_color
from finegrain.errors import DataError, ImageError
from finegrain.preprocess import load_image
from finegrain.records import Problem, Sample, Split

COLUMNS = ("file", "label", "split")
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
MEASURING_THREADS = 2


def read_labelled_photos(table: Path) -> Mapping[str, Split]:
    """Read a CSV of ``file,label,split`` whose pictures lie beside it.

    The captions of a picture name its label, and its dominant colour with its label. The
    colour is measured, not known: it is a weak label, and stays in the metadata as
    ``color`` beside ``label``. Pictures of one label and colour share a pid, as they share
    their captions.

    Raises:
        DataError: The table is missing, lacks a column, or no picture can be read.
    """
    if not table.is_file():
        raise DataError(f"there is no table of labels at {table}; give its folder by data.root")
    rows = list(enumerate(_rows(table), start=2))
    if not rows:
        raise DataError(f"{table} has no rows; expected one a picture")
    # The whole table's labels, so that a pid means the same in every split.
    labels = sorted({row["label"] or "" for _, row in rows})
    with ThreadPoolExecutor(MEASURING_THREADS) as pool:
        read = pool.map(lambda numbered: _read(table, labels, *numbered), rows)
        samples: dict[str, list[Sample]] = defaultdict(list)
        problems: dict[str, list[Problem]] = defaultdict(list)
        for split, result in read:
            (samples if isinstance(result, Sample) else problems)[split].append(result)  # type: ignore[arg-type]
    if not samples:
        raise DataError(f"no picture of {table} can be read; the first: {problems.popitem()[1][0]}")
    return {
        name: Split(name=name, samples=tuple(found), problems=tuple(problems[name]))
        for name, found in samples.items()
    }


def _rows(table: Path) -> list[dict[str, str | None]]:
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise DataError(f"{table} needs the columns {COLUMNS}; it has {reader.fieldnames}")
            return list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as CSV in UTF-8: {error}") from error


def _read(
    table: Path, labels: Sequence[str], line: int, row: Mapping[str, str | None]
) -> tuple[str, Sample | Problem]:
    where = f"{table.name}:{line}"
    file, label, named = ((row[column] or "").strip() for column in COLUMNS)
    split = SPLITS.get(named, named or "train")
    if not (file and label and named):
        return split, Problem(where=where, why=f"lacks one of {', '.join(COLUMNS)}")
    path = table.parent / file
    if "\0" in file or not path.resolve().is_relative_to(table.parent.resolve()):
        return split, Problem(where=where, why=f"{file!r} climbs out of the folder")
    try:
        color = dominant_color(load_image(path))
    except ImageError as error:
        return split, Problem(where=where, why=str(error))
    return split, Sample(
        image=path,
        captions=(label, f"{color} {label}", f"a photo of a {color} {label}"),
        pid=labels.index(row["label"] or "") * len(COLORS) + COLORS.index(color),
        metadata={"label": label, "color": color},
    )
