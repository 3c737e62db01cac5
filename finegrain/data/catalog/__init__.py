"""Readers of product catalogues: feeds of shops, tables, folders and archives of pictures."""

from finegrain.data.catalog.feeds import GOOGLE_MERCHANT, SHOPIFY, Feed, read_feed
from finegrain.data.catalog.folder import read_picture_folder, read_pictures
from finegrain.data.catalog.image_folder import read_image_folder
from finegrain.data.catalog.inputs import InputKind, input_kind
from finegrain.data.catalog.kinds import (
    MAX_BAD_SHARE,
    CatalogKind,
    CatalogOptions,
    catalog_kind,
    read_any_catalog,
    read_with,
)
from finegrain.data.catalog.roles import Roles
from finegrain.data.catalog.row import TextFormat
from finegrain.data.catalog.rows import open_table
from finegrain.data.catalog.shares import DEFAULT_SHARES, PRODUCT_COLUMNS, Shares, divided
from finegrain.data.catalog.table import DEFAULT_SPLIT, read_catalog
from finegrain.data.catalog.webdataset import read_webdataset

__all__ = [
    "DEFAULT_SHARES",
    "DEFAULT_SPLIT",
    "GOOGLE_MERCHANT",
    "MAX_BAD_SHARE",
    "PRODUCT_COLUMNS",
    "SHOPIFY",
    "CatalogKind",
    "CatalogOptions",
    "Feed",
    "InputKind",
    "Roles",
    "Shares",
    "TextFormat",
    "catalog_kind",
    "divided",
    "input_kind",
    "open_table",
    "read_any_catalog",
    "read_catalog",
    "read_feed",
    "read_image_folder",
    "read_picture_folder",
    "read_pictures",
    "read_webdataset",
    "read_with",
]
