"""A durable gallery of pictures: vectors, metadata, filters, exact search."""

from finegrain.gallery.duplicates import OnDuplicate
from finegrain.gallery.gallery import Gallery
from finegrain.gallery.row import Row, Stamp
from finegrain.gallery.sqlite.check import GalleryReport
from finegrain.gallery.sqlite.reindex import Reindexed
from finegrain.gallery.sqlite.stats import GalleryStats
from finegrain.index.approximate import Approximate, Hnsw, Ivf, RaBitQ, Tuned
from finegrain.index.exact import Hit

__all__ = [
    "Approximate",
    "Gallery",
    "GalleryReport",
    "GalleryStats",
    "Hit",
    "Hnsw",
    "Ivf",
    "OnDuplicate",
    "RaBitQ",
    "Reindexed",
    "Row",
    "Stamp",
    "Tuned",
]
