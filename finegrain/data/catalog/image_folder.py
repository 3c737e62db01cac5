"""Reader of ImageFolder, Hugging Face's layout of pictures beside a metadata file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from finegrain.data.catalog.pictures import CatalogPictures
from finegrain.data.catalog.rows import Row, read_rows
from finegrain.data.catalog.table import (
    DEFAULT_SPLIT,
    Columns,
    caption_column,
    collect_rows,
    common_split_name,
)
from finegrain.errors import DataError
from finegrain.records import Split

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
IMAGE_COLUMN = "file_name"
_SPLIT = "split"


def metadata_files(root: Path) -> tuple[Path, ...]:
    """The metadata files of a folder: its own, or those of the splits below it."""
    here = tuple(root / name for name in METADATA_FILES if (root / name).is_file())
    below = (path for name in METADATA_FILES for path in sorted(root.glob(f"*/{name}")))
    return here or tuple(below)


def read_image_folder(
    root: Path, *, pid_column: str | None = None, fallback_encoding: str | None = None
) -> dict[str, Split]:
    """Read a folder of pictures with ``metadata.csv``, ``.jsonl`` or ``.parquet``.

    The column ``file_name`` names the picture, relative to the metadata's folder; captions
    are in ``caption``, ``text``, ``captions``, ``title`` or ``description``, the first that
    is there. Folders below, each with metadata
    of its own, are splits by their names.

    Args:
        root: The folder.
        pid_column: Column that tells which rows show the same product.
        fallback_encoding: What the rows of a CSV are in that are not UTF-8.

    Raises:
        DataError: There is no metadata, it has no caption column, or no row is good.
    """
    files = metadata_files(root)
    if not files:
        raise DataError(
            f"expected {' or '.join(METADATA_FILES)} in {root} or in the folders of its splits, "
            "found none. Write one with the columns file_name and text."
        )
    return collect_rows(
        (row for file in files for row in _rows(file, root, fallback_encoding)),
        Columns(
            image=IMAGE_COLUMN,
            captions=(caption_column(files[0]),),
            pid=pid_column,
            split=_SPLIT,
        ),
        CatalogPictures(root / files[0].name).find_readable,
        source=files[0],
    )


def _rows(file: Path, root: Path, fallback_encoding: str | None) -> Iterator[Row]:
    whole = file.parent == root
    split = DEFAULT_SPLIT if whole else common_split_name(file.parent.name)
    for row in read_rows(file, fallback_encoding=fallback_encoding):
        cells: Mapping[str, object] = row.cells
        if not whole and isinstance(name := cells.get(IMAGE_COLUMN), str) and name.strip():
            cells = {**cells, IMAGE_COLUMN: f"{file.parent.name}/{name.strip()}"}
        if row.why is None:
            cells = {**cells, _SPLIT: split}
        yield Row(f"{file.relative_to(root).parent / row.where}", cells, row.why)
