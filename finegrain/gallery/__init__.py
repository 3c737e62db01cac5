"""A durable gallery of pictures: vectors, metadata, filters, exact search."""

from finegrain.gallery.gallery import Gallery
from finegrain.gallery.index import Hit
from finegrain.gallery.store import Row

__all__ = ["Gallery", "Hit", "Row"]
