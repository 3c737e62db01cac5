"""Reader of product feeds: what a shop exports, with several pictures or rows a product."""

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
from finegrain.data.catalog.table import DEFAULT_SPLIT, problem_of, shown_before
from finegrain.errors import DataError
from finegrain.records import Problem, ProblemKind, Sample, Scalar, Split

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What the columns of a feed mean; of several names the first with a value counts.

    Names are in lower case, with spaces for underscores, as columns are compared.

    Attributes:
        title: What kind of feed it is, for messages.
        key: Identifier of a row, or of a product where rows are `continued`.
        name: The product's title.
        description: Its text, perhaps in HTML.
        images: Its pictures, all of these columns.
        price: Its price.
        attributes: Metadata columns, ours to theirs.
        continued: Further rows of one key, without a title or with the same, bring further
            pictures; otherwise a key that comes again is an error.
        group: Identifier that variants of a product share.
        looks: Columns by which variants look different. Rows of one group that agree in them
            (sizes of one dress) are the same product to the eye, and have one pid: the group
            and these, as in ``G1/red/wool``. Without a group the pid is the key.
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


# https://help.shopify.com/en/manual/products/import-export/using-csv; the names behind are
# those of the template of 2024.
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
    """A product as its rows tell of it; pictures with the rows that name them."""

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
    """Read a feed: one sample a picture, pictures of one product with one pid.

    Captions are the title and the description without its markup. Prices become the number
    ``price`` and the ``currency``; a price that is none is reported, and the product kept
    without it. A row without a value in an attribute has None there.

    Args:
        table: A table of any format, or RSS or Atom.
        feed: What its columns mean.
        images_root: Folder where the pictures that it names by URL were downloaded to, under
            their file names. Nothing is fetched.
        encoding: Of the whole file, where it is text.
        fallback_encoding: Of the whole file where that is not UTF-8.
        separator: The character between the cells of a text table.
        for_search: Take each picture with the first product that shows it.

    Returns:
        One split, ``all``. What is left out stands among its problems, with its row.

    Raises:
        DataError: The table cannot be read, or no picture of it is good.
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
            # Every size of a dress is shown by the same pictures.
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
    """The products of some rows, and the rows that are none."""
    listings: dict[str, _Listing | None] = {}
    problems: list[Problem] = []
    for row in rows:
        key = ""
        try:
            if row.why is not None:
                raise DataError(row.why)
            cells = {normal_name(name): cell for name, cell in row.cells.items()}
            key = _text(cells, feed.key)
            if not key:
                raise DataError(f"has no {feed.key[0]}")
            if key not in listings:
                listings[key] = None  # stays so where the row is bad
                listings[key], odd = _listing(row.where, key, cells, feed)
                problems += odd
            listing = listings[key]
            if listing is None:
                continue  # of a product whose first row was bad, as reported there
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
    """Refuse a row that is not a further one of the same product."""
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
    """The cells that name pictures; one may name several."""
    for column in feed.images:
        yield from _values(cells.get(column))


def _text(cells: Mapping[str, Any], names: Names) -> str:
    """The first value among some columns, empty where there is none."""
    values = (value for name in names for value in _values(cells.get(name)))
    return next(values, "")


def _values(cell: Any) -> Iterator[str]:
    """The texts of a cell; XML and JSON have several in one."""
    for value in cell if isinstance(cell, list) else [cell]:
        if value is not None and str(value).strip():
            yield str(value).strip()
