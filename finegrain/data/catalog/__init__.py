"""Readers of product catalogues, as shops and data sets keep them."""

from finegrain.data.catalog.feeds import GOOGLE_MERCHANT, SHOPIFY, Feed, read_feed
from finegrain.data.catalog.image_folder import read_image_folder
from finegrain.data.catalog.kinds import (
    MAX_BAD_SHARE,
    CatalogKind,
    catalog_kind,
    read_any_catalog,
)
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
    "Feed",
    "Shares",
    "catalog_kind",
    "divided",
    "read_any_catalog",
    "read_catalog",
    "read_feed",
    "read_image_folder",
    "read_webdataset",
]
