"""A user's own tables as datasets to train on."""

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
from finegrain.records import Split


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A table with the pictures and captions of a product a row: CSV, JSON, Excel, Parquet.

    Attributes:
        table: The file; picture paths are relative to its folder.
        image_column: Column of pictures.
        image_pattern: Where the picture of a row lies, such as ``images/{id}.jpg``, instead.
        caption_columns: Columns of captions.
        pid_column: Column that tells which rows show the same product.
        split_column: Column that says ``train``, ``val`` or ``test``.
        images_root: Folder that picture paths are relative to instead, and where pictures named
            by URL were downloaded to.
        encoding: Of the whole table, where it is text.
        fallback_encoding: Of the whole table where that is not UTF-8.
        separator: The character between cells; found out by default.
        max_bad_share: How much of it may be left out, from 0 to 1.
        shares: What the splits are without such a column, by the hash of the product's id;
            None leaves one split, ``all``.
    """

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
        """All splits, with a warning that says what was left out.

        Raises:
            DataError: The table cannot be read, too much of it is bad, or a product or a picture
                is in a split to train on and in one to judge by.
        """
        splits = read_catalog(
            Path(self.table),
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
        refuse_mostly_bad(splits, f"table {self.table}", self.max_bad_share)
        return _own_splits(splits, self.shares, self.pid_column, self.table)


@dataclass(frozen=True, kw_only=True)
class LabelledPhotos:
    """Photographs with a class label each; captions are made of it and the measured colour.

    Attributes:
        root: The folder.
        table: The table of labels in it.
        image_column, label_column, split_column: Its columns.
        images_root: Folder that picture paths are relative to instead of `root`.
        encoding: Of the table; UTF-8 by default.
        max_bad_share: How much of it may be left out, from 0 to 1.
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
        """All splits; pids are labels with colours, so that splits share them.

        Raises:
            DataError: The table cannot be read, too much of it is bad, or a picture is in a
                split to train on and in one to judge by.
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
        image_column: Column of pictures; named, a table is read as a plain one.
        image_pattern: Where the picture of a row lies, such as ``images/{id}.jpg``; likewise.
        caption_columns: Columns of captions; likewise.
        pid_column: Column that tells which rows show the same product; feeds tell it themselves.
        images_root: Where pictures named by URL were downloaded to.
        encoding: Of a whole table, where it is text.
        fallback_encoding: Of a whole table that is not UTF-8.
        separator: The character between cells; found out by default.
        max_bad_share: How much of it may be left out, from 0 to 1.
        shares: Splits of one that has none, by the hash of the product's id; None leaves one
            split, ``all``.
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
        """All splits, with a warning that says what was left out.

        Raises:
            DataError: It cannot be read, too much of it is bad, or a product or a picture is in
                a split to train on and in one to judge by.
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
    """The splits of a user's own catalogue, which share nothing."""
    columns = PRODUCT_COLUMNS if pid_column is None else (kept_name(pid_column),)
    splits = divided(read, shares, columns=columns)
    refuse_shared_products(splits, source)
    refuse_shared_pictures(splits, source)
    _warn_of_left_out(splits, source)
    return splits


def _warn_of_left_out(splits: Mapping[str, Split], source: str) -> None:
    problems = [problem for split in splits.values() for problem in split.problems]
    if problems:
        told = "; ".join(map(str, problems[:3]))
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        # The caller of splits() is meant.
        warnings.warn(f"{source}: {len(problems)} left out: {told}{more}", stacklevel=4)
