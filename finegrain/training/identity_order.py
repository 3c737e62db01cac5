"""Batches with several items of each identity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import TrainingError
from finegrain.training.distributed import World
from finegrain.training.loader import Order


class IdentityOrder(Order):
    """Batches of ``P`` identities with ``K`` items of each, as in the released code of ITSELF.

    In each epoch, the items of an identity are shuffled and divided into groups of ``K``; a
    remainder is left out. An identity with fewer items repeats some of them. Every batch takes a
    group of each of ``P`` random identities that still have one.

    The released code ends an epoch when fewer than ``P`` identities are left, so its length
    varies. Here every epoch has as many full batches as there can be. Towards its end, identities
    with a group for each of the remaining batches are therefore drawn first.
    """

    def __init__(
        self,
        identities: Sequence[int],
        *,
        batch_size: int,
        items_per_identity: int,
        seed: int,
        world: World,
    ) -> None:
        order = np.argsort(identities, kind="stable")
        counts = np.bincount(np.asarray(identities, dtype=np.int64))
        self._items = np.split(order, counts.cumsum()[:-1])
        self._per_identity = items_per_identity
        self._people = batch_size * world.size // items_per_identity
        self._groups = np.maximum(counts // items_per_identity, counts > 0)
        self._batches = _most_batches(self._groups, self._people)
        if not self._batches:
            raise TrainingError(
                f"one step takes {items_per_identity} items of {self._people} people, and the "
                f"training split has {np.count_nonzero(counts)} people; choose a smaller batch_size"
            )
        super().__init__(
            self._batches * batch_size * world.size, batch_size=batch_size, seed=seed, world=world
        )

    def _shuffled(self, rng: np.random.Generator) -> NDArray[np.int64]:
        groups = [self._divided(items, rng) for items in self._items]
        left = self._groups.copy()
        drawn = []
        for remaining in range(self._batches, 0, -1):
            # Random people first, except that those who are needed in every batch precede them.
            priority = rng.random(len(left)) + (left >= remaining) - 2.0 * (left == 0)
            for person in np.argsort(-priority)[: self._people]:
                left[person] -= 1
                drawn.append(groups[person][left[person]])
        return np.concatenate(drawn)

    def _divided(self, items: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Shuffle the items of an identity into groups, ``[G, K]``."""
        size = self._per_identity
        if 0 < len(items) < size:
            return rng.choice(items, (1, size))
        count = len(items) // size
        return rng.permutation(items)[: count * size].reshape(count, size)


def _most_batches(groups: NDArray[np.int64], people: int) -> int:
    """The largest number of batches, each with a group of ``people`` different identities."""
    batches = int(groups.sum()) // people
    while batches and np.minimum(groups, batches).sum() < batches * people:
        batches -= 1
    return batches
