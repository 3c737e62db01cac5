"""A durable gallery of pictures: vectors, metadata, filters, exact search."""

from finegrain.gallery.approximate import Approximate, Hnsw, Ivf, RaBitQ, Tuned
from finegrain.gallery.check import GalleryReport
from finegrain.gallery.entries import OnDuplicate
from finegrain.gallery.gallery import Gallery
from finegrain.gallery.index import Hit
from finegrain.gallery.reindex import Reindexed
from finegrain.gallery.row import Row, Stamp

__all__ = [
    "Approximate",
    "Gallery",
    "GalleryReport",
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
