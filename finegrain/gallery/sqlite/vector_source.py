"""Reads the vectors of a file for an index, and names damaged ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

import numpy as np

from finegrain.gallery.sqlite.connections import as_gallery_errors
from finegrain.gallery.sqlite.vector_file import (
    Checksums,
    Mask,
    VectorFile,
    checksums_of,
)
from finegrain.index.estimate import Rows, Vectors

_FEW = 64  # for so many vectors, computing checksums is faster than reading the ids of a block


class VectorSource:
    """Implements :class:`finegrain.index.block.VectorSource`.

    Args:
        file: The file.
        on_damage: Called with the ids of vectors that do not agree with their checksum.
    """

    def __init__(self, file: VectorFile, on_damage: Callable[[Collection[int]], None]) -> None:
        self.file = file
        self._on_damage = on_damage
        self._checked: Mask = np.empty(0, np.bool_)

    def read(self, slots: Rows, checksums: Checksums) -> tuple[Mask, Vectors]:
        try:
            vectors = self.file.vectors(slots)
        except OSError:
            vectors = self._one_by_one(slots)
        if len(slots) <= _FEW:
            intact: Mask = checksums_of(vectors) == checksums
        else:
            intact = self._checked_once(slots, checksums, vectors)
        if intact.all():
            return intact, vectors
        with as_gallery_errors(self.file.path):
            # The id is negated before the vector is overwritten.
            ids = self.file.ids_at(slots[~intact])
        self._on_damage(ids[ids > 0].tolist())
        return intact, vectors[intact]

    def _checked_once(self, slots: Rows, checksums: Checksums, vectors: Vectors) -> Mask:
        """Which vectors are intact; the checksum of each is computed only once.

        A slot never gets another vector, so its id tells whether it was overwritten since.
        """
        if slots[-1] >= len(self._checked):
            added = np.zeros(int(slots[-1]) + 1 - len(self._checked), np.bool_)
            self._checked = np.concatenate([self._checked, added])
        checked = self._checked
        intact = checked[slots]
        if not intact.all():
            new = np.flatnonzero(~intact)
            intact[new] = checksums_of(vectors[new]) == checksums[new]
            checked[slots[new[intact[new]]]] = True
        with as_gallery_errors(self.file.path):
            intact &= self.file.ids_at(slots) > 0  # after the vectors were read
        return intact

    def _one_by_one(self, slots: Rows) -> Vectors:
        """Vectors of slots; zeros for those that the disk does not return."""
        vectors = np.zeros((len(slots), self.file.width), np.float32)
        for row in range(len(slots)):
            with suppress(OSError):
                vectors[row : row + 1] = self.file.vectors(slots[row : row + 1])
        return vectors
