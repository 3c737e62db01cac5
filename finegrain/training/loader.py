"""Training batches as a pure function of (seed, epoch, position).

Nothing here keeps a random state, so a resumed run sees the batches that an uninterrupted
one would have seen, whatever the number of loading processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

from finegrain.data.augment import Augmentation
from finegrain.errors import TrainingError
from finegrain.methods import Batch
from finegrain.preprocess import ImageTransform, Tokenizer, load_image
from finegrain.records import Split
from finegrain.training.distributed import World

MAX_CACHE_BYTES = 2 << 30
"""Decoded pictures are kept in memory up to this much; beyond, they are read every time."""

Key = tuple[int, int]
Pair = tuple[NDArray[np.uint8], str, int, str]


class Pictures:
    """The pictures of a split at the tower's size, decoded once where they fit in memory."""

    def __init__(self, split: Split, transform: ImageTransform, *, progress: bool) -> None:
        self._paths = [sample.image for sample in split.samples]
        self._transform = transform
        size = len(self._paths) * 3 * transform.height * transform.width
        self._decoded = self._decode_all(progress) if size <= MAX_CACHE_BYTES else None

    def _decode_all(self, progress: bool) -> NDArray[np.uint8]:
        shape = (len(self._paths), self._transform.height, self._transform.width, 3)
        decoded = np.empty(shape, np.uint8)
        with ThreadPoolExecutor(2) as pool:
            pictures = pool.map(self._read, range(len(self._paths)))
            for i, picture in enumerate(
                tqdm(
                    pictures,
                    total=len(self._paths),
                    desc="reading",
                    unit=" pictures",
                    disable=not progress,
                )
            ):
                decoded[i] = picture
        return decoded

    def _read(self, i: int) -> NDArray[np.uint8]:
        return self._transform(load_image(self._paths[i])).transpose(1, 2, 0)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        """Picture ``i`` as uint8 ``[H, W, 3]``."""
        return self._read(i) if self._decoded is None else self._decoded[i]


class Pairs(Dataset[Pair]):
    """Every (picture, caption) pair of a split, augmented by a seed of its own.

    Identities are numbered from 0 in the order of the dataset's ids, gaps or not: what a
    classifier needs, and for CUHK-PEDES (ids from 1) what released ones were trained with.
    """

    def __init__(
        self, split: Split, pictures: Pictures, augmentation: Augmentation, *, seed: int
    ) -> None:
        self._split = split
        self._pictures = pictures
        self._augmentation = augmentation
        self._seed = seed
        numbers = {pid: n for n, pid in enumerate(sorted({s.pid for s in split.samples}))}
        self._labels = [numbers[sample.pid] for sample in split.samples]
        self._pairs = [(i, j) for i, s in enumerate(split.samples) for j in range(len(s.captions))]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, key: Key) -> Pair:
        epoch, index = key
        i, j = self._pairs[index]
        sample = self._split.samples[i]
        seed = np.random.SeedSequence((self._seed, epoch, index)).generate_state(1)[0]
        pixels = self._augmentation(self._pictures[i], int(seed))
        return pixels, sample.captions[j], self._labels[i], f"{sample.image}[{j}]"


class Order(Sampler[list[Key]]):
    """Keys of each batch of this process: a new shuffle an epoch, the same for every process.

    A last batch that is not full is left out (``drop_last``), since contrastive losses of
    small batches are another task, or else divided among the processes as evenly as can be
    without giving one more than another.
    """

    def __init__(
        self, num_pairs: int, *, batch_size: int, drop_last: bool = True, seed: int, world: World
    ) -> None:
        self._num_pairs = num_pairs
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._seed = seed
        self._world = world
        self._start = (0, 0)
        if not len(self):
            raise TrainingError(
                f"one step takes {batch_size} pairs in each of {world.size} processes, and the "
                f"training split has {num_pairs}; choose a smaller batch_size"
            )

    def __len__(self) -> int:
        full, left = divmod(self._num_pairs, self._batch_size * self._world.size)
        return full + (not self._drop_last and left >= self._world.size)

    def start_at(self, epoch: int, batch: int) -> None:
        """What the next iteration begins with."""
        self._start = (epoch, batch)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, first = self._start
        rng = np.random.default_rng((self._seed, epoch))
        shuffled = rng.permutation(self._num_pairs)
        step = self._batch_size * self._world.size
        for batch in range(first, len(self)):
            start = batch * step
            share = min(step, self._num_pairs - start) // self._world.size
            start += self._world.rank * share
            yield [(epoch, int(i)) for i in shuffled[start : start + share]]


def make_loader(
    pairs: Pairs, order: Order, tokenizer: Tokenizer, *, workers: int, device: torch.device
) -> DataLoader[Batch]:
    """Batches of a run, assembled in ``workers`` processes."""

    return DataLoader(
        pairs,  # type: ignore[arg-type]  # a batch sampler of keys, which DataLoader allows
        batch_sampler=order,
        num_workers=workers,
        collate_fn=partial(_collate, tokenizer=tokenizer),
        persistent_workers=workers > 0,
        # Of its own, or every resume would draw once more from the model's random state.
        generator=torch.Generator(),
    )


def _collate(rows: list[Pair], *, tokenizer: Tokenizer) -> Batch:
    pixels, captions, pids, where = zip(*rows, strict=True)
    tokens = tokenizer.encode(captions)
    return Batch(
        pixels=torch.from_numpy(np.stack(pixels)),
        ids=torch.from_numpy(tokens.ids),
        eot=torch.from_numpy(tokens.eot),
        pids=torch.tensor(pids),
        where=where,
    )
