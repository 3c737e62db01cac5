from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import TrainingError
from finegrain.training.distributed import World
from finegrain.training.identity_order import IdentityOrder


def order(identities, *, people, size=2, rank=0, world=1, seed=0):
    return IdentityOrder(
        identities,
        batch_size=people * size // world,
        items_per_identity=size,
        seed=seed,
        world=World(rank=rank, size=world, device=torch.device("cpu")),
    )


def epoch_of(of, epoch=0, batch=0):
    of.start_at(epoch, batch)
    return [[index for _, index in keys] for keys in of]


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    people=st.integers(1, 4),
    size=st.integers(1, 3),
    epoch=st.integers(0, 5),
)
def test_every_batch_has_the_same_number_of_items_of_each_identity(counts, people, size, epoch):
    identities = np.random.default_rng(0).permutation(np.repeat(range(len(counts)), counts))
    if people > len(counts):
        with pytest.raises(TrainingError, match=f"has {len(counts)} people"):
            order(identities, people=people, size=size)
        return
    of = order(identities, people=people, size=size)
    batches = epoch_of(of, epoch)
    assert len(batches) == len(of) > 0
    for batch in batches:
        assert sorted(Counter(identities[batch]).values()) == [size] * people
    used = Counter(np.concatenate(batches).tolist())
    enough = [item for item in used if counts[identities[item]] >= size]
    assert all(used[item] == 1 for item in enough)


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(1, 9), min_size=2, max_size=8), people=st.integers(1, 4))
def test_an_epoch_has_as_many_batches_as_there_can_be(counts, people):
    """One more batch would need more groups than the identities have."""
    if people > len(counts):
        return
    batches = len(order(np.repeat(range(len(counts)), counts), people=people))
    groups = [max(1, count // 2) for count in counts]
    assert sum(min(g, batches) for g in groups) >= batches * people
    assert sum(min(g, batches + 1) for g in groups) < (batches + 1) * people


def test_processes_divide_the_batches_of_one_process():
    identities = np.repeat(range(9), 5)
    whole = epoch_of(order(identities, people=4))
    halves = [epoch_of(order(identities, people=4, rank=rank, world=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


def test_epochs_differ_and_a_resumed_one_continues():
    identities = np.repeat(range(9), 5)
    first = epoch_of(order(identities, people=4), epoch=3)
    assert epoch_of(order(identities, people=4), epoch=3, batch=2) == first[2:]
    assert epoch_of(order(identities, people=4), epoch=4) != first
    assert epoch_of(order(identities, people=4, seed=1), epoch=3) != first


def test_all_identities_are_drawn_about_as_often_at_the_start_of_an_epoch():
    """Only towards the end are those with more items preferred."""
    identities = np.repeat(range(20), [4] * 10 + [8] * 10)
    of = order(identities, people=5)
    drawn = Counter()
    for epoch in range(300):
        drawn.update(identities[epoch_of(of, epoch)[0]][::2].tolist())
    assert all(45 <= drawn[person] <= 110 for person in range(20))
