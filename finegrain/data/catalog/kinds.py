"""Which kind of catalogue a file or folder is, by what is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finegrain.data.catalog.feeds import GOOGLE_MERCHANT, SHOPIFY, Feed, read_feed
from finegrain.data.catalog.image_folder import METADATA_FILES, metadata_files, read_image_folder
from finegrain.data.catalog.pictures import CatalogPictures
from finegrain.data.catalog.rows import columns_of, read_rows
from finegrain.data.catalog.table import Columns, caption_column, collect_rows
from finegrain.data.catalog.webdataset import read_webdataset, shards_of
from finegrain.errors import DataError
from finegrain.records import Split

MAX_BAD_SHARE = 0.1
"""Share of rows that may be left out before a catalogue is refused, by default."""

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What :func:`read_any_catalog` was told besides the path."""

    image_column: str
    caption_columns: tuple[str, ...]
    pid_column: str | None
    images_root: Path | None
    fallback_encoding: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogKind:
    """A kind of catalogue.

    Attributes:
        title: For messages.
        fits: Whether a path, with the columns of its first row, is of this kind.
        read: Its reader.
    """

    title: str
    fits: Callable[[Path, Sequence[str]], bool]
    read: Callable[[Path, _Options], dict[str, Split]]


def catalog_kind(path: Path) -> CatalogKind:
    """The kind of a catalogue, by its columns or the files in it rather than its name.

    Raises:
        DataError: There is nothing, or a folder without a catalogue.
    """
    if not path.exists():
        raise DataError(f"expected a catalogue at {path}, found nothing.")
    columns: Sequence[str] = ()
    if path.is_file() and path.suffix.lower() != ".tar":
        columns = columns_of(path)
    for kind in KINDS:
        if kind.fits(path, columns):
            return kind
    if path.is_dir():
        raise DataError(
            f"expected metadata.csv, .jsonl or .parquet, or shards *.tar in {path}, found none."
        )
    return TABLE


def read_any_catalog(
    path: Path,
    *,
    image_column: str | None = None,
    caption_columns: Sequence[str] = (),
    pid_column: str | None = None,
    images_root: Path | None = None,
    fallback_encoding: str | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
) -> dict[str, Split]:
    """Read a catalogue of any kind that finegrain knows.

    A Shopify export, a Google Merchant feed (TSV, CSV, RSS or Atom), an ImageFolder, a
    WebDataset, and any table of pictures with captions: CSV, JSON lines, or Parquet with
    paths or with the pictures inside. Each picture's header is looked at.

    Args:
        path: The file or folder.
        image_column: Column of pictures. Given, ``path`` is read as a plain table whatever
            its columns are; ``image`` where a plain table is read without it.
        caption_columns: Columns of captions, likewise; ``caption``, ``text``, ``captions``,
            ``title`` or ``description`` by default.
        pid_column: Column that tells which rows show the same product, where the kind of
            catalogue does not tell it itself.
        images_root: Folder that picture paths are relative to, and in which pictures named
            by URL are looked for by their file names. Nothing is fetched.
        fallback_encoding: What the rows of a CSV are in that are not UTF-8, such as
            ``cp1252``; without it they are left out.
        max_bad_share: How much of the catalogue may be left out, from 0 to 1.

    Returns:
        The splits by name; ``all`` where the catalogue has none.

    Raises:
        DataError: It cannot be read, or too much of it is bad.
        MissingExtraError: A Parquet table needs ``pyarrow``.
    """
    if not 0.0 <= max_bad_share <= 1.0:
        raise DataError(f"max_bad_share: expected a share from 0 to 1, got {max_bad_share!r}.")
    kind = TABLE if image_column or caption_columns else catalog_kind(path)
    if kind is TABLE and not path.is_file():
        raise DataError(f"expected a table at {path}, found none.")
    splits = kind.read(
        path,
        _Options(
            image_column=image_column or "image",
            caption_columns=tuple(caption_columns),
            pid_column=pid_column,
            images_root=images_root,
            fallback_encoding=fallback_encoding,
        ),
    )
    _refuse_mostly_bad(splits, f"{kind.title} {path}", max_bad_share)
    return splits


def _refuse_mostly_bad(splits: dict[str, Split], title: str, max_bad_share: float) -> None:
    problems = [problem for split in splits.values() for problem in split.problems]
    total = len(problems) + sum(map(len, splits.values()))
    if len(problems) > max_bad_share * total:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{title}: expected at most {max_bad_share:.0%} to be left out, got {len(problems)} "
            f"of {total}: {'; '.join(map(str, problems[:_SHOWN]))}{more}. Mend them, or allow "
            "more by max_bad_share."
        )


def _read_table(path: Path, options: _Options) -> dict[str, Split]:
    return collect_rows(
        read_rows(path, fallback_encoding=options.fallback_encoding),
        Columns(
            image=options.image_column,
            captions=options.caption_columns or (caption_column(path),),
            pid=options.pid_column,
        ),
        CatalogPictures(path, images_root=options.images_root).find_readable,
        source=path,
    )


def _image_folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _feed_kind(feed: Feed) -> CatalogKind:
    return CatalogKind(
        title=feed.title,
        fits=lambda _, columns: feed.fits(columns),
        read=lambda path, options: read_feed(
            path,
            feed,
            images_root=options.images_root,
            fallback_encoding=options.fallback_encoding,
        ),
    )


TABLE = CatalogKind(title="table", fits=lambda path, _: path.is_file(), read=_read_table)

KINDS = (
    _feed_kind(SHOPIFY),
    _feed_kind(GOOGLE_MERCHANT),
    CatalogKind(
        title="ImageFolder",
        fits=lambda path, _: (
            path.name in METADATA_FILES or (path.is_dir() and bool(metadata_files(path)))
        ),
        read=lambda path, options: read_image_folder(
            _image_folder_of(path),
            pid_column=options.pid_column,
            fallback_encoding=options.fallback_encoding,
        ),
    ),
    CatalogKind(
        title="WebDataset",
        fits=lambda path, _: (
            path.suffix.lower() == ".tar" or (path.is_dir() and bool(shards_of(path)))
        ),
        read=lambda path, options: read_webdataset(path, pid_column=options.pid_column),
    ),
)
