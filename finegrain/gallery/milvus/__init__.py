"""Galleries on a Milvus cluster, or in a file of milvus-lite."""

from finegrain.gallery.milvus.address import MilvusAddress
from finegrain.gallery.milvus.store import MilvusStore

__all__ = ["MilvusAddress", "MilvusStore"]
