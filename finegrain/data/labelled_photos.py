"""Photographs with one class label each, and captions from the label and the measured colour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from finegrain.data.catalog.columns import named
from finegrain.data.catalog.pictures import CatalogPictures
from finegrain.data.catalog.row import Row, Table, TextFormat
from finegrain.data.catalog.rows import open_table
from finegrain.data.catalog.table import problem_of
from finegrain.data.catalog.values import name_of
from finegrain.data.colors import NAMES, dominant_color
from finegrain.errors import DataError, ImageError, did_you_mean
from finegrain.preprocess import load_image
from finegrain.records import Problem, Sample, Split

SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
MEASURING_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelColumns:
    """The columns of a table of labels."""

    image: str = "file"
    label: str = "label"
    split: str = "split"

    @property
    def names(self) -> tuple[str, ...]:
        return self.image, self.label, self.split


USUAL_COLUMNS = LabelColumns()


def read_labelled_photos(
    table: Path,
    *,
    columns: LabelColumns = USUAL_COLUMNS,
    images_root: Path | None = None,
    encoding: str | None = None,
) -> Mapping[str, Split]:
    """Read a table with a picture, its label and its split in each row.

    A picture has two captions: its label, and its dominant colour with its label. The colour is
    measured, so it is a weak label. The metadata have it as ``color`` beside ``label``. Pictures
    with the same label and colour have the same captions, so they share a pid.

    Args:
        table: The file.
        columns: The names of its columns.
        images_root: Folder that the pictures are relative to. The default is the table's folder.
        encoding: Encoding of the table. The default is UTF-8.

    Raises:
        DataError: The table is missing, lacks a column, or no picture can be read.
    """
    if not table.is_file():
        raise DataError(f"there is no table of labels at {table}; set its folder with data.root")
    opened = open_table(table, TextFormat(encoding=encoding))
    spelled_columns = _spelled(columns, opened)
    rows = list(opened.rows)
    if not rows:
        raise DataError(f"expected one row per picture in {table}, got none")
    # The labels of the whole table, so that a pid has the same meaning in every split.
    labels = sorted({name_of(row.cells.get(spelled_columns.label)) or "" for row in rows})
    pictures = CatalogPictures(table, images_root=images_root, check=False)
    with ThreadPoolExecutor(MEASURING_THREADS) as pool:
        read = pool.map(lambda row: _read(row, spelled_columns, labels, pictures), rows)
        samples: dict[str, list[Sample]] = defaultdict(list)
        problems: dict[str, list[Problem]] = defaultdict(list)
        for split, result in read:
            if isinstance(result, Sample):
                samples[split].append(result)
            else:
                problems[split].append(result)
    if not samples:
        raise DataError(f"no picture of {table} can be read; the first: {problems.popitem()[1][0]}")
    return {
        name: Split(name=name, samples=tuple(good), problems=tuple(problems[name]))
        for name, good in samples.items()
    }


def _spelled(columns: LabelColumns, table: Table) -> LabelColumns:
    """The columns as the table spells them."""
    image, label, split = (named(table.columns, (name,)) for name in columns.names)
    if image is None or label is None or split is None:
        missing = [name for name in columns.names if named(table.columns, (name,)) is None]
        raise DataError(
            f"{table.path} needs the columns {', '.join(map(repr, columns.names))}; it has "
            f"{', '.join(map(repr, table.columns))}."
            f"{did_you_mean(missing[0], table.columns)}"
        )
    return LabelColumns(image=image, label=label, split=split)


def _read(
    row: Row, columns: LabelColumns, labels: Sequence[str], pictures: CatalogPictures
) -> tuple[str, Sample | Problem]:
    file, label, named = (name_of(row.cells.get(column)) or "" for column in columns.names)
    split = SPLITS.get(named, named or "train")
    try:
        if row.invalid is not None:
            raise DataError(row.invalid)
        if not (file and label and named):
            raise DataError(f"lacks one of {', '.join(columns.names)}")
        path = pictures.find(file)
        color = dominant_color(load_image(path))
    except (DataError, ImageError) as error:
        return split, problem_of(row.where, error)
    return split, Sample(
        image=path,
        captions=(label, f"{color} {label}", f"a photo of a {color} {label}"),
        pid=labels.index(label) * len(NAMES) + NAMES.index(color),
        metadata={"label": label, "color": color},
    )
