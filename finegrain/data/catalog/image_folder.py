"""Reader of ImageFolder, Hugging Face's layout of pictures with a metadata file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from finegrain.data.catalog.pictures import CatalogPictures
from finegrain.data.catalog.roles import USUAL_ROLES, Roles
from finegrain.data.catalog.row import FIND_OUT, Row, Table, TextFormat
from finegrain.data.catalog.rows import open_table
from finegrain.data.catalog.table import (
    DEFAULT_SPLIT,
    common_split_name,
    read_table,
)
from finegrain.errors import DataError
from finegrain.records import Split

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
IMAGE_COLUMN = "file_name"
_SPLIT = "split"


def metadata_files(root: Path) -> tuple[Path, ...]:
    """The metadata files of a folder, or of the splits below it."""
    here = tuple(root / name for name in METADATA_FILES if (root / name).is_file())
    below = (path for name in METADATA_FILES for path in sorted(root.glob(f"*/{name}")))
    return here or tuple(below)


def read_image_folder(
    root: Path,
    *,
    roles: Roles = USUAL_ROLES,
    text: TextFormat = FIND_OUT,
    images_root: Path | None = None,
    only: Path | None = None,
) -> dict[str, Split]:
    """Read a folder of pictures with ``metadata.csv``, ``.jsonl`` or ``.parquet``.

    The column ``file_name`` names the picture, relative to the folder of the metadata. Captions
    are in the first existing column of ``caption``, ``text``, ``captions``, ``title`` and
    ``description``. A folder below with its own metadata is a split of that name.

    Args:
        root: The folder.
        roles: Names of columns that differ from the usual ones.
        text: Encoding and separator, if they are known.
        images_root: Folder that the names are relative to, instead of the metadata's folder.
        only: Read only this metadata file.

    Raises:
        DataError: There is no metadata, it has no caption column, or no row is valid.
    """
    files = metadata_files(root) if only is None else (only,)
    if not files:
        raise DataError(
            f"expected {' or '.join(METADATA_FILES)} in {root} or in the folders of its splits, "
            "found none. Write one with the columns file_name and text."
        )
    table = _joined([open_table(file, text) for file in files], root, images_root)
    columns = roles.with_split(_SPLIT, image=IMAGE_COLUMN).in_table(table)
    pictures = CatalogPictures(root / files[0].name, images_root=images_root)
    return read_table(table, columns, pictures, for_search=roles.for_search)


def _joined(tables: Sequence[Table], root: Path, images_root: Path | None) -> Table:
    """The tables of all splits, joined into one."""
    columns = dict.fromkeys(name for table in tables for name in table.columns)
    return Table(
        path=tables[0].path,
        columns=(*columns, _SPLIT),
        rows=(row for table in tables for row in _rows(table, root, images_root)),
        is_text=all(table.is_text for table in tables),
        notes=[note for table in tables for note in table.notes],
    )


def _rows(table: Table, root: Path, images_root: Path | None) -> Iterator[Row]:
    folder = table.path.parent
    whole = folder == root
    is_beside = not whole and images_root is None
    split = DEFAULT_SPLIT if whole else common_split_name(folder.name)
    for row in table.rows:
        cells: Mapping[str, object] = row.cells
        if is_beside and isinstance(name := cells.get(IMAGE_COLUMN), str) and name.strip():
            cells = {**cells, IMAGE_COLUMN: f"{folder.name}/{name.strip()}"}
        if row.why is None:
            cells = {**cells, _SPLIT: split}
        yield replace(row, where=str(folder.relative_to(root) / row.where), cells=cells)
