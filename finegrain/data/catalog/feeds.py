"""Reader of product feeds of shops, with several pictures or rows per product."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finegrain.data.catalog.columns import normal_name
from finegrain.data.catalog.markup import strip_html
from finegrain.data.catalog.pictures import CatalogPictures
from finegrain.data.catalog.prices import parse_price
from finegrain.data.catalog.row import Row, TextFormat
from finegrain.data.catalog.rows import open_table
from finegrain.data.catalog.table import DEFAULT_SPLIT, left_empty, problem_of, shown_before
from finegrain.errors import DataError
from finegrain.records import Problem, ProblemKind, Sample, Scalar, Split

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The columns of a kind of feed. The first of several names with a value is used.

    Names are in lower case with spaces instead of underscores, as columns are compared.

    Attributes:
        title: Name of the kind of feed, for messages.
        key: Identifier of a row, or of a product if rows are ``continued``.
        name: Title of the product.
        description: Description of the product, which may be HTML.
        images: Pictures of the product. All these columns are used.
        price: Price of the product.
        attributes: Name in the metadata to the columns of the feed.
        continued: Whether further rows with the same key, and the same or no title, add pictures.
            Otherwise a repeated key is an error.
        group: Identifier that variants of a product share.
        looks: Columns by which variants look different. Rows of a group with equal values (sizes
            of one dress) look the same and share a pid, which is the group with these values,
            such as ``G1/red/wool``. Without a group, the pid is the key.
    """

    title: str
    key: Names
    name: Names
    description: Names
    images: Names
    price: Names
    attributes: Mapping[str, Names]
    continued: bool = False
    group: Names = ()
    looks: Names = ()

    def fits(self, columns: Iterable[str]) -> bool:
        """Whether a table with these columns is such a feed."""
        there = {normal_name(column) for column in columns}
        return all(there & set(names) for names in (self.key, self.name, self.images))


# https://help.shopify.com/en/manual/products/import-export/using-csv; the second names are those
# of the template of 2024.
SHOPIFY = Feed(
    title="Shopify export",
    key=("handle", "url handle"),
    name=("title",),
    description=("body (html)", "description"),
    images=("image src", "product image url", "variant image", "variant image url"),
    price=("variant price", "price"),
    attributes={
        "brand": ("vendor",),
        "category": ("product category",),
        "subcategory": ("type",),
        "tags": ("tags",),
        "sku": ("variant sku", "sku"),
    },
    continued=True,
)

# https://support.google.com/merchants/answer/7052112
GOOGLE_MERCHANT = Feed(
    title="Google Merchant feed",
    key=("id",),
    name=("title",),
    description=("description",),
    images=("image link", "additional image link"),
    price=("price",),
    attributes={
        "brand": ("brand",),
        "category": ("google product category",),
        "subcategory": ("product type",),
        "color": ("color",),
        "material": ("material",),
        "pattern": ("pattern",),
        "size": ("size",),
        "gender": ("gender",),
        "age_group": ("age group",),
        "availability": ("availability",),
        "item_group_id": ("item group id",),
        "link": ("link",),
    },
    group=("item group id",),
    looks=("color", "material", "pattern"),
)


@dataclass(slots=True)
class _Listing:
    """A product from its rows. Each picture is stored with the row that names it."""

    where: str
    name: str
    captions: tuple[str, ...]
    pid: str
    metadata: dict[str, Scalar]
    pictures: list[tuple[str, str]] = field(default_factory=list)


def read_feed(
    table: Path,
    feed: Feed,
    *,
    images_root: Path | None = None,
    encoding: str | None = None,
    fallback_encoding: str | None = None,
    separator: str | None = None,
    for_search: bool = False,
) -> dict[str, Split]:
    """Read a feed: one sample per picture, and one pid per product.

    Captions are the title and the description without markup. A price becomes the number
    ``price`` and the ``currency``. An invalid price is reported, and the product stays without
    it. Missing attributes are None.

    Args:
        table: A table of any format, or RSS or Atom.
        feed: The columns of the kind of feed.
        images_root: Folder with the downloaded files of pictures that are named by URL. Nothing is
            downloaded.
        encoding: Encoding of a text file.
        fallback_encoding: Encoding of a text file that is not UTF-8.
        separator: The character between the cells of a text table.
        for_search: Whether a picture is used only with the first product that shows it.

    Returns:
        One split, ``all``. Rows and pictures that were left out are among its problems.

    Raises:
        DataError: The table cannot be read, or has no valid picture.
    """
    text = TextFormat(encoding=encoding, fallback_encoding=fallback_encoding, separator=separator)
    opened = open_table(table, text)
    listings, problems = _gather(opened.rows, feed)
    pictures = CatalogPictures(table, images_root=images_root)
    samples: list[Sample] = []
    first_rows: dict[Path, str] = {}
    seen: set[tuple[str, Path]] = set()
    for listing in listings:
        for result in _samples(listing, pictures):
            if isinstance(result, Problem):
                problems.append(result)
                continue
            first = first_rows.setdefault(result.image, listing.where)
            # All sizes of a dress have the same pictures.
            if (listing.pid, result.image) in seen:
                continue
            seen.add((listing.pid, result.image))
            if for_search and first != listing.where:
                problems.append(shown_before(listing.where, result.image, first))
            else:
                samples.append(result)
    if not samples:
        raise DataError(
            f"expected a {feed.title} with pictures at {table}, got none; "
            f"{problems[0] if problems else 'it has no rows'}."
        )
    split = Split(
        name=DEFAULT_SPLIT,
        samples=tuple(samples),
        problems=tuple(problems),
        notes=tuple(f"{table.name}: {note}" for note in opened.notes),
    )
    return {DEFAULT_SPLIT: split}


def _gather(rows: Iterable[Row], feed: Feed) -> tuple[list[_Listing], list[Problem]]:
    """The products of a feed, and a problem for each bad row."""
    listings: dict[str, _Listing | None] = {}
    problems: list[Problem] = []
    for row in rows:
        key = ""
        try:
            if row.invalid is not None:
                raise DataError(row.invalid)
            problems += left_empty(row)
            cells = {normal_name(name): cell for name, cell in row.cells.items()}
            key = _text(cells, feed.key)
            if not key:
                raise DataError(f"has no {feed.key[0]}")
            if key not in listings:
                listings[key] = None  # stays None if the row is bad
                listings[key], odd = _listing(row.where, key, cells, feed)
                problems += odd
            listing = listings[key]
            if listing is None:
                continue  # the first row of this product was bad and is reported
            if listing.where != row.where:
                _continue(listing, key, cells, feed)
            listing.pictures += [(row.where, cell) for cell in _pictures(cells, feed)]
        except DataError as error:
            problems.append(problem_of(row.where, error))
    return [listing for listing in listings.values() if listing is not None], problems


def _listing(
    where: str, key: str, cells: Mapping[str, Any], feed: Feed
) -> tuple[_Listing, list[Problem]]:
    name = strip_html(_text(cells, feed.name))
    captions = tuple(filter(None, (name, strip_html(_text(cells, feed.description)))))
    if not captions:
        raise DataError(f"has no {feed.name[0]}")
    metadata: dict[str, Scalar] = {"product_id": key}
    for ours, theirs in feed.attributes.items():
        if any(column in cells for column in theirs):
            metadata[ours] = _text(cells, theirs) or None
    price, problems = _price(where, _text(cells, feed.price))
    pid = key
    if group := _text(cells, feed.group):
        looks = (_text(cells, (column,)).lower() for column in feed.looks)
        pid = "/".join((group, *filter(None, looks)))
    return _Listing(where, name, captions, pid, {**metadata, **price}), problems


def _price(where: str, written: str) -> tuple[dict[str, Scalar], list[Problem]]:
    if not written:
        return {}, []
    try:
        price = parse_price(written)
    except DataError as error:
        why = f"{error}; kept without a price"
        return {}, [Problem(where=where, why=why, kind=ProblemKind.VALUE)]
    return {"price": price.amount, "currency": price.currency}, []


def _continue(listing: _Listing, key: str, cells: Mapping[str, Any], feed: Feed) -> None:
    """Reject a row that repeats a key but does not continue the same product."""
    name = strip_html(_text(cells, feed.name))
    if not feed.continued or name not in ("", listing.name):
        raise DataError(f"has the {feed.key[0]} {key!r:.60} of {listing.where} again")


def _samples(listing: _Listing, pictures: CatalogPictures) -> Iterator[Sample | Problem]:
    if not listing.pictures:
        yield Problem(where=listing.where, why="has no picture", kind=ProblemKind.ROW)
    for where, cell in listing.pictures:
        images, errors = pictures.find_all(cell)
        for image in images:
            yield Sample(
                image=image,
                captions=listing.captions,
                pid=listing.pid,
                metadata=listing.metadata,
            )
        yield from (problem_of(where, error) for error in errors)


def _pictures(cells: Mapping[str, Any], feed: Feed) -> Iterator[str]:
    """Yield the names of pictures in all cells. A cell may name several."""
    for column in feed.images:
        yield from _values(cells.get(column))


def _text(cells: Mapping[str, Any], names: Names) -> str:
    """The first value of several columns, or an empty text."""
    values = (value for name in names for value in _values(cells.get(name)))
    return next(values, "")


def _values(cell: Any) -> Iterator[str]:
    """Yield the texts of a cell. A cell of XML and JSON may have several."""
    for value in cell if isinstance(cell, list) else [cell]:
        if value is not None and str(value).strip():
            yield str(value).strip()
