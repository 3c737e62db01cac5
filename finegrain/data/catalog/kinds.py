"""Detects the kind of a catalogue from its content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finegrain.data.catalog.feeds import GOOGLE_MERCHANT, SHOPIFY, Feed, read_feed
from finegrain.data.catalog.image_folder import METADATA_FILES, metadata_files, read_image_folder
from finegrain.data.catalog.pictures import CatalogPictures
from finegrain.data.catalog.roles import USUAL_ROLES, Roles
from finegrain.data.catalog.row import FIND_OUT, TextFormat
from finegrain.data.catalog.rows import open_table
from finegrain.data.catalog.table import read_table
from finegrain.data.catalog.webdataset import read_webdataset, shards_of
from finegrain.errors import DataError
from finegrain.records import Split

MAX_BAD_SHARE = 0.1
"""Default of the largest share of rows that may be left out."""

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogOptions:
    """Options for reading a catalogue.

    Attributes:
        roles: The roles of columns.
        text: Encoding and separator of a text table.
        images_root: Folder that picture paths are relative to, with the downloaded files of
            pictures that are named by URL. Nothing is downloaded.
        max_bad_share: Largest share of rows that may be left out, from 0 to 1.

    Raises:
        DataError: The share is out of range.
    """

    roles: Roles = USUAL_ROLES
    text: TextFormat = FIND_OUT
    images_root: Path | None = None
    max_bad_share: float = MAX_BAD_SHARE

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_bad_share <= 1.0:
            raise DataError(
                f"max_bad_share: expected a share from 0 to 1, got {self.max_bad_share!r}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogKind:
    """A kind of catalogue.

    Attributes:
        title: Name of the kind, for messages.
        fits: A function that tells from a path and the columns of its table whether it is of this
            kind.
        read: The reader.
    """

    title: str
    fits: Callable[[Path, Sequence[str]], bool]
    read: Callable[[Path, CatalogOptions], dict[str, Split]]


def catalog_kind(path: Path, text: TextFormat = FIND_OUT) -> CatalogKind:
    """The kind of a catalogue, from its columns or its files and not from its name.

    Raises:
        DataError: The path does not exist, or is a folder without a catalogue.
    """
    if not path.exists():
        raise DataError(f"expected a catalogue at {path}, found nothing.")
    columns: Sequence[str] = ()
    if path.is_file() and path.suffix.lower() != ".tar":
        columns = open_table(path, text).columns
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
    image_pattern: str | None = None,
    caption_columns: Sequence[str] = (),
    pid_column: str | None = None,
    camera_column: str | None = None,
    time_column: str | None = None,
    time_format: str | None = None,
    images_root: Path | None = None,
    encoding: str | None = None,
    fallback_encoding: str | None = None,
    separator: str | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    for_search: bool = False,
) -> dict[str, Split]:
    """Read a catalogue of any kind that finegrain knows.

    The kinds are: a Shopify export, a Google Merchant feed (a table, RSS or Atom), an
    ImageFolder, a WebDataset, and any table of pictures with captions: CSV and similar formats,
    JSON, Excel, or Parquet with paths or with the pictures themselves. The header of each picture
    is checked.

    Args:
        path: The file or folder.
        image_column: Column of pictures. By default, usual names are tried. With it, the file is
            read as a plain table.
        image_pattern: Path of a row's picture with columns in braces, such as
            ``images/{id}.jpg``. With it, the file is read as a plain table.
        caption_columns: Columns of captions. The default is the first existing column of
            ``caption``, ``text``, ``captions``, ``title`` and ``description``. With them, the
            file is read as a plain table.
        pid_column: Column whose value is the same for rows of one product, for catalogues that
            have no own identifier. The default is ``pid``.
        camera_column: Column of the camera's name. The default is ``camera``.
        time_column: Column of the time of the picture. The default is ``time``.
        time_format: Format of times, such as ``%d/%m/%Y %H:%M``. By default ISO 8601 and other
            unambiguous formats are read.
        images_root: Folder that picture paths are relative to, with the downloaded files of
            pictures that are named by URL. Nothing is downloaded.
        encoding: Encoding of a text table, such as ``gbk``.
        fallback_encoding: Encoding of a text table that is not UTF-8. Without it, rows that are
            not UTF-8 are left out.
        separator: The character between the cells of a text table. It is detected by default.
        max_bad_share: Largest share of rows that may be left out, from 0 to 1.
        for_search: Whether a picture is used only with the first row that shows it, as a gallery
            has it once. A row then needs no caption unless ``caption_columns`` are named.

    Returns:
        The splits by name, or the single split ``all`` if the catalogue has no splits.

    Raises:
        DataError: The catalogue cannot be read, or too many rows are bad.
        MissingExtraError: ``pyarrow`` for Parquet or ``openpyxl`` for Excel is not installed.
    """
    roles = Roles(
        image=image_column,
        pattern=image_pattern,
        captions=tuple(caption_columns),
        pid=pid_column,
        camera=camera_column,
        time=time_column,
        time_format=time_format,
        for_search=for_search,
    )
    text = TextFormat(encoding=encoding, fallback_encoding=fallback_encoding, separator=separator)
    options = CatalogOptions(
        roles=roles, text=text, images_root=images_root, max_bad_share=max_bad_share
    )
    return read_with(path, options)


def read_with(path: Path, options: CatalogOptions) -> dict[str, Split]:
    """Read a catalogue of any kind; see :func:`read_any_catalog`."""
    roles = options.roles
    is_plain = path.is_file() and (roles.image or roles.pattern or roles.captions)
    kind = TABLE if is_plain else catalog_kind(path, options.text)
    splits = kind.read(path, options)
    refuse_mostly_bad(splits, f"{kind.title} {path}", options.max_bad_share)
    return splits


def refuse_mostly_bad(splits: Mapping[str, Split], title: str, max_bad_share: float) -> None:
    """Check that not too many pictures and rows were left out.

    Raises:
        DataError: The share that was left out is larger than ``max_bad_share``.
    """
    problems = [p for split in splits.values() for p in split.problems if p.is_loss]
    total = len(problems) + sum(map(len, splits.values()))
    if len(problems) > max_bad_share * total:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{title}: expected at most {max_bad_share:.0%} to be left out, got {len(problems)} "
            f"of {total}: {'; '.join(map(str, problems[:_SHOWN]))}{more}. Repair them, or allow "
            "more with max_bad_share."
        )


def _read_table(path: Path, options: CatalogOptions) -> dict[str, Split]:
    table = open_table(path, options.text)
    columns = options.roles.in_table(table)
    pictures = CatalogPictures(path, images_root=options.images_root)
    return read_table(table, columns, pictures, for_search=options.roles.for_search)


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
            encoding=options.text.encoding,
            fallback_encoding=options.text.fallback_encoding,
            separator=options.text.separator,
            for_search=options.roles.for_search,
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
            roles=options.roles,
            text=options.text,
            images_root=options.images_root,
        ),
    ),
    CatalogKind(
        title="WebDataset",
        fits=lambda path, _: (
            path.suffix.lower() == ".tar" or (path.is_dir() and bool(shards_of(path)))
        ),
        read=lambda path, options: read_webdataset(path, roles=options.roles),
    ),
)
