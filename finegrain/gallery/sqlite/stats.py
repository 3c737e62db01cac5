"""Numbers about a gallery's files and memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finegrain.gallery.sqlite.backup import tokens_of
from finegrain.gallery.sqlite.connections import log_of
from finegrain.gallery.sqlite.files import codes_of, next_vectors_of, vectors_of
from finegrain.gallery.sqlite.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryStats:
    """Result of :meth:`Gallery.stats`.

    Attributes:
        path: Path of the gallery.
        num_pictures: Number of pictures that have not expired.
        dim: Width of the vectors.
        vectors_per_row: Number of vectors of a picture.
        columns: Kind of each column, by name.
        index: Kind of index.
        memory: Bytes in memory by part; empty before the first search. ``ids``, ``codes`` and
            ``vectors`` belong to the index, ``places`` are places and checksums of vectors in the
            file, ``columns`` are those of filters, and ``gpu`` is in the memory of a GPU.
        disk: Bytes of each file, by its name.
        num_blocks: Number of full blocks of vectors, which hold their codes.
        num_slots: Number of places for vectors that are in use, including ``num_unused_slots``.
        num_unused_slots: Number of places of deleted pictures. :meth:`Gallery.compact` removes
            them.
        unused_page_bytes: Bytes of the database without content, which later additions use and
            :meth:`Gallery.compact` gives back.
        num_unerased: Number of deletions whose bytes are still to be overwritten, because another
            process reads an older snapshot.
    """

    path: Path
    num_pictures: int
    dim: int
    vectors_per_row: int
    columns: Mapping[str, str]
    index: str
    memory: Mapping[str, int]
    disk: Mapping[str, int]
    num_blocks: int
    num_slots: int
    num_unused_slots: int
    unused_page_bytes: int
    num_unerased: int

    def to_dict(self) -> dict[str, Any]:
        """All attributes, as values of JSON."""
        return asdict(self) | {"path": str(self.path)}

    def __str__(self) -> str:
        columns = ", ".join(f"{name} ({kind})" for name, kind in self.columns.items())
        lines = [
            f"{self.path}: {self.num_pictures} pictures, vectors of width {self.dim}",
            f"columns: {columns}",
            f"index: {self.index}",
            f"memory: {_sizes(self.memory) or 'nothing yet; the first search fills the index'}",
            f"disk: {_sizes(self.disk)}",
            f"vectors: {self.num_blocks} full blocks; {self.num_slots} places in use, "
            f"{self.num_unused_slots} of them of deleted pictures",
            f"database: {_size(self.unused_page_bytes)} unused",
        ]
        if self.num_unerased:
            lines.append(f"deletions whose bytes are not overwritten yet: {self.num_unerased}")
        return "\n  ".join(lines)


def file_stats(store: Store) -> dict[str, Any]:
    """Those attributes of :class:`GalleryStats` that the files tell."""
    with store.reading() as run:
        num_slots, num_blocks = store.slots()
        (num_rows,) = run("SELECT count(*) FROM picture").fetchone()
        deletions, erased = run("SELECT deletions, scrubbed FROM gallery").fetchone()
        (free_pages,) = run("PRAGMA freelist_count").fetchone()
        (page_size,) = run("PRAGMA page_size").fetchone()
    return {
        "path": store.path,
        "num_pictures": store.count(),
        "dim": store.dim // store.vectors_per_row,
        "vectors_per_row": store.vectors_per_row,
        "disk": _file_sizes(store.path),
        "num_blocks": num_blocks,
        "num_slots": num_slots,
        "num_unused_slots": num_slots - num_rows,
        "unused_page_bytes": free_pages * page_size,
        "num_unerased": deletions - erased,
    }


def _file_sizes(path: Path) -> dict[str, int]:
    sizes = {}
    vectors = (vectors_of(path), next_vectors_of(path))
    for file in (path, log_of(path), *vectors, tokens_of(path), codes_of(path)):
        with suppress(FileNotFoundError):
            sizes[file.name] = file.stat().st_size
    return sizes


def _sizes(parts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
    return f"{_size(sum(parts.values()))} ({shown})" if parts else ""


def _size(count: int) -> str:
    if count < 1 << 20:
        return f"{count / (1 << 10):.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB" if count < 1 << 30 else f"{count / (1 << 30):.2f} GiB"
