"""A user's own tables as training datasets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finegrain.data.catalog import (
    DEFAULT_SHARES,
    MAX_BAD_SHARE,
    PRODUCT_COLUMNS,
    Shares,
    divided,
    read_any_catalog,
    read_catalog,
)
from finegrain.data.catalog.columns import kept_name
from finegrain.data.catalog.kinds import refuse_mostly_bad
from finegrain.data.labelled_photos import LabelColumns, read_labelled_photos
from finegrain.data.overlap import refuse_shared_pictures, refuse_shared_products
from finegrain.errors import FinegrainWarning
from finegrain.records import Split


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A table with the pictures and captions of a product in each row: CSV, JSON, Excel, Parquet.

    Attributes:
        root: Folder of the table. None takes ``table`` as a path of its own.
        table: The file; picture paths are relative to its folder.
        image_column: Column of pictures.
        image_pattern: Path of a row's picture, such as ``images/{id}.jpg``, instead of a column.
        caption_columns: Columns of captions.
        pid_column: Column whose value is the same for rows of one product.
        split_column: Column with ``train``, ``val`` or ``test``.
        images_root: Folder that picture paths are relative to instead of the table's folder, with
            the downloaded files of pictures that are named by URL.
        encoding: Encoding of a text table.
        fallback_encoding: Encoding of a text table that is not UTF-8.
        separator: The character between cells. It is detected by default.
        max_bad_share: Largest share of rows that may be left out, from 0 to 1.
        shares: Shares of the splits of a table without a split column, by the hash of the
            product's id. None makes one split, ``all``.
    """

    root: str | None = None
    table: str = "data/catalog.csv"
    image_column: str = "image"
    image_pattern: str | None = None
    caption_columns: tuple[str, ...] = ("caption",)
    pid_column: str | None = None
    split_column: str | None = None
    images_root: str | None = None
    encoding: str | None = None
    fallback_encoding: str | None = None
    separator: str | None = None
    max_bad_share: float = MAX_BAD_SHARE
    shares: Shares | None = DEFAULT_SHARES

    def splits(self) -> Mapping[str, Split]:
        """All splits by name, with a warning about rows that were left out.

        Raises:
            DataError: The table cannot be read, too many rows are bad, or a product or a picture
                is in a training split and in a validation or test split.
        """
        table = Path(self.root or "", self.table)
        splits = read_catalog(
            table,
            image_column=self.image_column,
            image_pattern=self.image_pattern,
            caption_columns=self.caption_columns,
            pid_column=self.pid_column,
            split_column=self.split_column,
            image_root=_folder(self.images_root),
            encoding=self.encoding,
            fallback_encoding=self.fallback_encoding,
            separator=self.separator,
        )
        refuse_mostly_bad(splits, f"table {table}", self.max_bad_share)
        return _own_splits(splits, self.shares, self.pid_column, str(table))


@dataclass(frozen=True, kw_only=True)
class LabelledPhotos:
    """Photographs with a class label each. Captions have the label and the measured colour.

    Attributes:
        root: The folder.
        table: The table of labels in it.
        image_column, label_column, split_column: Columns of the table.
        images_root: Folder that picture paths are relative to instead of ``root``.
        encoding: Encoding of the table. The default is UTF-8.
        max_bad_share: Largest share of rows that may be left out, from 0 to 1.
    """

    root: str = "data/clothing"
    table: str = "labels.csv"
    image_column: str = "file"
    label_column: str = "label"
    split_column: str = "split"
    images_root: str | None = None
    encoding: str | None = None
    max_bad_share: float = MAX_BAD_SHARE

    def splits(self) -> Mapping[str, Split]:
        """All splits by name. A pid is a label with a colour, so splits share pids.

        Raises:
            DataError: The table cannot be read, too many rows are bad, or a picture is in a
                training split and in a validation or test split.
        """
        table = Path(self.root) / self.table
        splits = read_labelled_photos(
            table,
            columns=LabelColumns(
                image=self.image_column, label=self.label_column, split=self.split_column
            ),
            images_root=_folder(self.images_root),
            encoding=self.encoding,
        )
        refuse_mostly_bad(splits, f"table {table}", self.max_bad_share)
        refuse_shared_pictures(splits, str(table))
        _warn_of_left_out(splits, str(table))
        return splits


@dataclass(frozen=True, kw_only=True)
class ShopCatalog:
    """A catalogue of a kind that finegrain recognises, such as an ImageFolder.

    Attributes:
        path: The file or folder.
        image_column: Column of pictures. With it, the file is read as a plain table.
        image_pattern: Path of a row's picture, such as ``images/{id}.jpg``. With it, the file is
            read as a plain table.
        caption_columns: Columns of captions. With them, the file is read as a plain table.
        pid_column: Column whose value is the same for rows of one product. Feeds have their own.
        images_root: Folder with the downloaded files of pictures that are named by URL.
        encoding: Encoding of a text table.
        fallback_encoding: Encoding of a text table that is not UTF-8.
        separator: The character between cells. It is detected by default.
        max_bad_share: Largest share of rows that may be left out, from 0 to 1.
        shares: Shares of the splits of a catalogue without splits, by the hash of the product's
            id. None makes one split, ``all``.
    """

    path: str = "data/catalog"
    image_column: str | None = None
    image_pattern: str | None = None
    caption_columns: tuple[str, ...] = ()
    pid_column: str | None = None
    images_root: str | None = None
    encoding: str | None = None
    fallback_encoding: str | None = None
    separator: str | None = None
    max_bad_share: float = MAX_BAD_SHARE
    shares: Shares | None = DEFAULT_SHARES

    def splits(self) -> Mapping[str, Split]:
        """All splits by name, with a warning about rows that were left out.

        Raises:
            DataError: The catalogue cannot be read, too many rows are bad, or a product or a
                picture is in a training split and in a validation or test split.
        """
        splits = read_any_catalog(
            Path(self.path),
            image_column=self.image_column,
            image_pattern=self.image_pattern,
            caption_columns=self.caption_columns,
            pid_column=self.pid_column,
            images_root=_folder(self.images_root),
            encoding=self.encoding,
            fallback_encoding=self.fallback_encoding,
            separator=self.separator,
            max_bad_share=self.max_bad_share,
        )
        return _own_splits(splits, self.shares, self.pid_column, self.path)


def _folder(path: str | None) -> Path | None:
    return None if path is None else Path(path)


def _own_splits(
    read: Mapping[str, Split], shares: Shares | None, pid_column: str | None, source: str
) -> Mapping[str, Split]:
    """The splits of a user's catalogue, which must not share a product or a picture."""
    columns = PRODUCT_COLUMNS if pid_column is None else (kept_name(pid_column),)
    splits = divided(read, shares, columns=columns)
    refuse_shared_products(splits, source)
    refuse_shared_pictures(splits, source)
    _warn_of_left_out(splits, source)
    return splits


def _warn_of_left_out(splits: Mapping[str, Split], source: str) -> None:
    problems = [problem for split in splits.values() for problem in split.problems]
    if problems:
        listed = "; ".join(map(str, problems[:3]))
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        # The warning points at the caller of splits().
        warnings.warn(
            f"{source}: {len(problems)} left out: {listed}{more}", FinegrainWarning, stacklevel=4
        )
