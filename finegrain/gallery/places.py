"""Locations of a gallery: a file, or a collection on Milvus."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from finegrain.errors import GalleryError
from finegrain.gallery.backend import Backend, Memory
from finegrain.gallery.milvus import MilvusAddress, MilvusStore
from finegrain.gallery.sqlite.followed_store import FollowedStore
from finegrain.index.backend import SearchBackend

MOST_VECTORS = 64
"""Most vectors of a picture; the cost of a search grows with its square."""


def open_store(
    path: str | Path,
    *,
    fingerprint: str | None,
    dim: int | None,
    create: bool,
    index: SearchBackend | None,
    memory: Memory,
    vectors_per_row: int | None,
) -> Backend:
    """Open the storage at a path or address; see :class:`~finegrain.gallery.Gallery`."""
    if memory not in get_args(Memory):
        raise GalleryError(f"expected memory='codes' or 'vectors', got {memory!r:.40}")
    if vectors_per_row is not None and vectors_per_row not in range(1, MOST_VECTORS + 1):
        raise GalleryError(
            f"vectors_per_row is a whole number from 1 to {MOST_VECTORS}; got "
            f"{vectors_per_row!r:.40}"
        )
    address = MilvusAddress.of(path)
    if memory == "vectors" and (index is not None or address is not None):
        raise GalleryError(
            "memory='vectors' belongs to the exact search of a gallery in a file; leave out "
            + ("memory=" if address else "memory= or index=")
        )
    if address is None:
        if Path(path).is_dir():
            raise GalleryError(f"{path} is a folder. Give the path of the gallery's file.")
        return FollowedStore(
            Path(path),
            fingerprint=fingerprint,
            dim=dim,
            create=create,
            index=index,
            memory=memory,
            vectors_per_row=vectors_per_row,
        )
    if index is not None:
        raise GalleryError(f"{address.shown} is on Milvus and searched exactly; give no index=")
    return MilvusStore(
        address,
        fingerprint=fingerprint,
        dim=dim,
        create=create,
        vectors_per_row=vectors_per_row,
    )


def location_exists(path: str | Path) -> bool:
    """Whether a path or address exists; nothing is created.

    Raises:
        GalleryError: The server cannot be reached.
    """
    address = MilvusAddress.of(path)
    return Path(path).exists() if address is None else MilvusStore.exists(address)
