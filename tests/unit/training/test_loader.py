from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finegrain.data.augment import Augmentation
from finegrain.errors import TrainingError
from finegrain.preprocess import ImageTransform
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.training.distributed import World
from finegrain.training.loader import Order, Pairs, make_loader
from finegrain.training.pictures import Pictures

CPU = torch.device("cpu")
TRANSFORM = ImageTransform(height=32, width=16, fit="stretch")


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer(16)


def order(num_pairs, *, batch_size, drop_last=True, seed=0, rank=0, size=1):
    return Order(
        num_pairs,
        batch_size=batch_size,
        drop_last=drop_last,
        seed=seed,
        world=World(rank=rank, size=size, device=CPU),
    )


def epoch_of(of, epoch, batch=0):
    of.start_at(epoch, batch)
    return list(of)


@given(
    num_pairs=st.integers(1, 60),
    batch_size=st.integers(1, 7),
    size=st.integers(1, 3),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 9),
)
def test_an_epoch_has_every_pair_at_most_once_over_all_processes(
    num_pairs, batch_size, size, epoch, seed
):
    step = batch_size * size
    if num_pairs < step:
        with pytest.raises(TrainingError, match="choose a smaller batch_size"):
            order(num_pairs, batch_size=batch_size, size=size)
        return
    ranks = [
        epoch_of(order(num_pairs, batch_size=batch_size, seed=seed, rank=r, size=size), epoch)
        for r in range(size)
    ]
    keys = [key for batches in ranks for batch in batches for key in batch]
    assert len(keys) == len(set(keys)) == num_pairs // step * step
    assert {e for e, _ in keys} == {epoch}
    assert {i for _, i in keys} <= set(range(num_pairs))
    for batches in ranks:
        assert [len(batch) for batch in batches] == [batch_size] * (num_pairs // step)


def test_each_process_takes_its_slice_of_the_batch_that_one_process_would_take():
    whole = epoch_of(order(50, batch_size=6, seed=3), 2)
    halves = [epoch_of(order(50, batch_size=3, seed=3, rank=r, size=2), 2) for r in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


def test_shuffles_differ_by_epoch_and_seed_and_are_repeatable():
    same = order(50, batch_size=5)
    first = epoch_of(same, 0)
    indices = [i for batch in first for _, i in batch]
    assert epoch_of(same, 0) == first
    assert [i for batch in epoch_of(same, 1) for _, i in batch] != indices
    assert epoch_of(order(50, batch_size=5, seed=1), 0) != first
    assert indices != sorted(indices)


def test_starting_in_the_middle_gives_the_rest_of_the_epoch():
    same = order(50, batch_size=5)
    assert epoch_of(same, 4, batch=7) == epoch_of(same, 4)[7:]
    assert epoch_of(same, 4, batch=10) == []


@pytest.fixture
def split(flat_people):
    return flat_people.splits()["train"]


def pairs_of(split, *, captions=1, weak_positives=0.0, seed=0, flip=0.5):
    augmentation = Augmentation((32, 16), flip=flip, pad=0.1, erase=0.5, color_jitter=0.2)
    pictures = Pictures(split, TRANSFORM, progress=False)
    return Pairs(
        split,
        pictures,
        augmentation,
        captions=captions,
        weak_positives=weak_positives,
        seed=seed,
    )


def test_pairs_are_every_picture_with_each_of_its_captions(split):
    pairs = pairs_of(split)
    assert len(pairs) == 64
    rows = [pairs[0, i] for i in range(len(pairs))]
    numbers = {pid: n for n, pid in enumerate(sorted({s.pid for s in split.samples}))}
    expected = [
        ((caption,), numbers[sample.pid], f"{sample.image}[{j}]")
        for sample in split.samples
        for j, caption in enumerate(sample.captions)
    ]
    assert [row[1:4] for row in rows] == expected
    assert {(row[0].shape, row[0].dtype) for row in rows} == {((3, 32, 16), np.dtype(np.uint8))}


def with_pids(split, pids):
    samples = [replace(s, pid=pid) for s, pid in zip(split.samples, pids, strict=False)]
    return replace(split, samples=tuple(samples))


def test_identities_are_numbered_from_zero_for_any_pids(split):
    gappy = with_pids(split, [900, 7, 7, 31])
    pairs = pairs_of(gappy)
    assert [pairs[0, i][2] for i in range(0, len(pairs), 2)] == [2, 0, 0, 1]


@pytest.mark.parametrize("captions", [2, 3, 5])
def test_a_picture_has_several_captions_in_a_batch(captions, split):
    """Each caption is used once before any is repeated, in another order in each epoch."""
    pairs = pairs_of(split, captions=captions)
    assert len(pairs) == len(split.samples)
    orders = set()
    for epoch in range(8):
        for i, sample in enumerate(split.samples):
            told = pairs[epoch, i][1]
            assert len(told) == captions
            counts = [told.count(caption) for caption in sample.captions]
            assert sum(counts) == captions
            assert max(counts) - min(counts) <= 1
            orders.add(tuple(sample.captions.index(caption) for caption in told))
    assert len(orders) > 1


def test_a_batch_keeps_the_captions_of_a_picture_together(split, tokenizer):
    pairs, taken = pairs_of(split, captions=2), order(32, batch_size=4)
    batch = next(iter(make_loader(pairs, taken, tokenizer, workers=0, device=CPU)))
    (keys, *_) = epoch_of(taken, 0)
    told = [caption for key in keys for caption in pairs[key][1]]
    assert batch.pixels.shape[0] == len(batch.pids) == len(batch.where) == 4
    assert torch.equal(batch.ids, torch.from_numpy(tokenizer.encode(told).ids))


def test_weak_positives_are_of_the_same_person(split, tokenizer):
    """With two pictures of two captions each, three of four draws are another caption."""
    pairs = pairs_of(split, weak_positives=0.4)
    written_of = {
        number: {c for s in split.samples if s.pid == pid for c in s.captions}
        for number, pid in enumerate(sorted({s.pid for s in split.samples}))
    }
    rows = [pairs[epoch, i] for epoch in range(20) for i in range(len(pairs))]
    plain = pairs_of(split)
    assert [row.captions[:1] for row in rows[:64]] == [plain[0, i].captions for i in range(64)]
    assert all(row.captions[1] in written_of[row.label] for row in rows)
    assert all(row.is_replaced == (row.captions[0] != row.captions[1]) for row in rows)
    others = [len(written_of[row.label]) - 1 for row in rows]
    expected = 0.4 * np.mean([n / (n + 1) for n in others])
    replaced = np.mean([row.is_replaced for row in rows])
    assert replaced == pytest.approx(expected, abs=0.05)
    taken = order(64, batch_size=8)
    batch = next(iter(make_loader(pairs, taken, tokenizer, workers=0, device=CPU)))
    (keys, *_) = epoch_of(taken, 0)
    assert batch.replaced.tolist() == [pairs[key].is_replaced for key in keys]
    assert len(batch.ids) == 2 * len(batch.pids)


def test_second_captions_are_a_function_of_seed_epoch_and_index(split):
    one, other = (pairs_of(split, weak_positives=0.5, seed=3) for _ in range(2))
    told = [one[2, i].captions for i in range(64)]
    assert told == [other[2, i].captions for i in reversed(range(64))][::-1]
    assert told != [one[3, i].captions for i in range(64)]


def test_without_weak_positives_nothing_is_replaced(split, tokenizer):
    batch = next(
        iter(
            make_loader(pairs_of(split), order(64, batch_size=8), tokenizer, workers=0, device=CPU)
        )
    )
    assert batch.replaced is None


@given(num_pairs=st.integers(1, 60), batch_size=st.integers(1, 7), size=st.integers(1, 3))
def test_a_last_batch_may_be_kept(num_pairs, batch_size, size):
    """Every process has the same number of pairs; fewer pairs than processes are left out."""
    if num_pairs < size:
        return
    ranks = [
        epoch_of(order(num_pairs, batch_size=batch_size, drop_last=False, rank=r, size=size), 0)
        for r in range(size)
    ]
    keys = [key for batches in ranks for batch in batches for key in batch]
    assert len(keys) == len(set(keys)) == num_pairs - num_pairs % (batch_size * size) % size
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    assert len(ranks[0]) == len(order(num_pairs, batch_size=batch_size, drop_last=False, size=size))


def test_augmentation_is_a_function_of_seed_epoch_and_index(split):
    pairs = pairs_of(split, seed=1)
    pixels = pairs[3, 5][0]
    assert np.array_equal(pixels, pairs_of(split, seed=1)[3, 5][0])
    others = [pairs_of(split, seed=2)[3, 5][0], *(pairs[epoch, 5][0] for epoch in range(3))]
    assert not all(np.array_equal(pixels, other) for other in others)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_the_stated_fields(workers, split, tokenizer):
    pairs, taken = pairs_of(split), order(64, batch_size=8)
    batches = make_loader(pairs, taken, tokenizer, workers=workers, device=CPU)
    for epoch, start in ((0, 0), (1, 5)):
        taken.start_at(epoch, start)
        expected = epoch_of(order(64, batch_size=8), epoch, start)
        got = list(batches)
        assert len(got) == len(expected)
        for batch, keys in zip(got, expected, strict=True):
            rows = [pairs[key] for key in keys]
            assert np.array_equal(batch.pixels.numpy(), np.stack([row[0] for row in rows]))
            tokens = tokenizer.encode([row[1][0] for row in rows])
            assert np.array_equal(batch.ids.numpy(), tokens.ids)
            assert np.array_equal(batch.eot.numpy(), tokens.eot)
            assert batch.pids.tolist() == [row[2] for row in rows]
            assert batch.where == tuple(row[3] for row in rows)
            assert batch.items.tolist() == [index for _, index in keys]


def test_loading_does_not_change_the_random_state(split, tokenizer):
    batches = make_loader(
        pairs_of(split), order(64, batch_size=8), tokenizer, workers=0, device=CPU
    )
    before = torch.get_rng_state()
    next(iter(batches))
    assert torch.equal(torch.get_rng_state(), before)
