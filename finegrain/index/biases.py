"""Numbers that are added to the inner products of rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from finegrain.index.estimate import Ids, Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Biases:
    """Biases by id; those of other ids are zero.

    Attributes:
        ids: Ids, ascending, ``[n]``.
        values: Their biases, ``[n]``.
    """

    ids: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    values: Vectors = field(default_factory=lambda: np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, ids: Ids) -> Vectors | None:
        """The biases of some ids; None if all are zero."""
        if not len(self):
            return None
        places = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        biases = np.where(self.ids[places] == ids, self.values[places], np.float32(0))
        return biases if biases.any() else None

    def changed(self, ids: Ids, values: Vectors) -> Biases:
        """A copy with other biases of some ids, ascending."""
        kept = ~np.isin(self.ids, ids)
        given = values != 0
        all_ids = np.concatenate([self.ids[kept], ids[given]])
        all_values = np.concatenate([self.values[kept], values[given]])
        order = np.argsort(all_ids)
        return Biases(all_ids[order], all_values[order])
