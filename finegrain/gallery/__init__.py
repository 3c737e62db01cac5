"""A durable gallery of pictures: vectors, metadata, filters, exact search."""

from finegrain.gallery.approximate import Approximate, Hnsw, Ivf, RaBitQ, Tuned
from finegrain.gallery.entries import OnDuplicate
from finegrain.gallery.gallery import Gallery
from finegrain.gallery.grouping import GroupBy
from finegrain.gallery.index import Hit
from finegrain.gallery.reindex import Reindexed
from finegrain.gallery.row import Row

__all__ = [
    "Approximate",
    "Gallery",
    "GroupBy",
    "Hit",
    "Hnsw",
    "Ivf",
    "OnDuplicate",
    "RaBitQ",
    "Reindexed",
    "Row",
    "Tuned",
]
