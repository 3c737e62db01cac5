"""Training batches as a pure function of (seed, epoch, position).

Nothing here keeps a random state, so a resumed run sees the batches that an uninterrupted
one would have seen, whatever the number of loading processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from finegrain.data.augment import Augmentation
from finegrain.data.caption_augment import drop_words
from finegrain.errors import TrainingError
from finegrain.methods import Batch
from finegrain.preprocess import Cleaning, Tokenizer
from finegrain.preprocess.cleaning import CLIP_CLEANING
from finegrain.records import Split
from finegrain.training.distributed import World
from finegrain.training.pictures import Pictures
from finegrain.training.wrong_captions import SUBCATEGORY, WrongCaptions

Key = tuple[int, int]


class Item(NamedTuple):
    """A picture with its captions.

    Attributes:
        pixels: uint8 ``[3, H, W]``.
        captions: As many of every item; the last one is of another identity where those are
            asked for.
        label: Number of the identity.
        where: For error messages.
        number: Of the item in the split.
        is_replaced: Whether the last caption is a weak positive.
    """

    pixels: NDArray[np.uint8]
    captions: tuple[str, ...]
    label: int
    where: str
    number: int
    is_replaced: bool


class Pairs(Dataset[Item]):
    """Every (picture, caption) pair of a split, augmented by a seed of its own.

    With ``captions`` above 1 an item is a picture with so many of its captions, drawn anew
    each epoch; a picture with fewer gives some of them again. With ``weak_positives`` a pair
    has a second caption: with that probability one drawn from all captions of the same person
    (a weak positive, Bai et al. 2023), and otherwise the first again. With ``wrong_captions``
    an item has one more, of another identity; see :class:`WrongCaptions`.

    Identities are numbered from 0 in the order of the dataset's ids, gaps or not: what a
    classifier needs, and for CUHK-PEDES (ids from 1) what released ones were trained with.
    """

    def __init__(
        self,
        split: Split,
        pictures: Pictures,
        augmentation: Augmentation,
        *,
        captions: int = 1,
        weak_positives: float = 0.0,
        drop_words: float = 0.0,
        wrong_captions: bool = False,
        cleaning: Cleaning = CLIP_CLEANING,
        seed: int,
    ) -> None:
        self._split = split
        self._pictures = pictures
        self._augmentation = augmentation
        self._seed = seed
        self._labels: list[int] = split.identities().tolist()
        self._captions = captions
        self._drop_words = drop_words
        self._cleaning = cleaning
        self._weak_positives = weak_positives
        self._written_of: dict[int, list[str]] = defaultdict(list)
        for sample, label in zip(split.samples, self._labels, strict=True):
            self._written_of[label] += sample.captions
        self._wrong = WrongCaptions(split, self._written_of) if wrong_captions else None
        self._items = (
            [(i, j) for i, sample in enumerate(split.samples) for j in range(len(sample.captions))]
            if captions == 1
            else [(i, 0) for i in range(len(split.samples))]
        )

    def __len__(self) -> int:
        return len(self._items)

    @property
    def has_weak_positives(self) -> bool:
        return self._weak_positives > 0

    @property
    def has_wrong_captions(self) -> bool:
        return self._wrong is not None

    @property
    def groups(self) -> Tensor | None:
        """Number of the sub-category of each item; see :class:`~finegrain.methods.Batch`."""
        stated = [sample.metadata.get(SUBCATEGORY) for sample in self._split.samples]
        names = sorted({str(name) for name in stated if name is not None})
        numbers = {name: n for n, name in enumerate(names, start=1)}
        known = [0 if name is None else numbers[str(name)] for name in stated]
        return torch.tensor([known[i] for i, _ in self._items]) if names else None

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        i, first = self._items[index]
        sample = self._split.samples[i]
        seeds = np.random.SeedSequence((self._seed, epoch, index)).generate_state(4)
        told = [first] if self._captions == 1 else self._draw(len(sample.captions), int(seeds[1]))
        captions = [sample.captions[j] for j in told]
        if self.has_weak_positives:
            captions.append(self._of_the_same(self._labels[i], captions[0], int(seeds[3])))
        is_replaced = self.has_weak_positives and captions[-1] != captions[0]
        if self._wrong is not None:
            captions.append(self._wrong.draw(sample, self._labels[i], (self._seed, epoch, index)))
        if self._drop_words:
            # Words are what the method's cleaning leaves of them.
            captions = [
                drop_words(self._cleaning.reworded(caption), self._drop_words, int(seeds[2]) + n)
                for n, caption in enumerate(captions)
            ]
        return Item(
            pixels=self._augmentation(self._pictures[i], int(seeds[0])),
            captions=tuple(captions),
            label=self._labels[i],
            where=f"{sample.image}{told}",
            number=index,
            is_replaced=is_replaced,
        )

    def _of_the_same(self, label: int, caption: str, seed: int) -> str:
        """Now and then any caption of a person, otherwise the given one."""
        rng = np.random.default_rng(seed)
        if rng.random() >= self._weak_positives:
            return caption
        written = self._written_of[label]
        return written[rng.integers(len(written))]

    def _draw(self, count: int, seed: int) -> list[int]:
        """Which of a picture's captions: each once before any comes again."""
        order = np.random.default_rng(seed).permutation(count)
        return [int(j) for j in np.resize(order, self._captions)]


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
        pin_memory=device.type == "cuda",
        collate_fn=partial(
            _collate,
            tokenizer=tokenizer,
            groups=pairs.groups,
            has_weak_positives=pairs.has_weak_positives,
            has_wrong_captions=pairs.has_wrong_captions,
        ),
        persistent_workers=workers > 0,
        # Of its own, or every resume would draw once more from the model's random state.
        generator=torch.Generator(),
    )


def _collate(
    items: list[Item],
    *,
    tokenizer: Tokenizer,
    groups: Tensor | None,
    has_weak_positives: bool,
    has_wrong_captions: bool,
) -> Batch:
    tokens = tokenizer.encode([caption for item in items for caption in item.captions])
    rows = np.arange(len(tokens.eot)).reshape(len(items), -1)
    own, wrong = (rows[:, :-1], rows[:, -1]) if has_wrong_captions else (rows, None)
    numbers = [item.number for item in items]
    return Batch(
        pixels=torch.from_numpy(np.stack([item.pixels for item in items])),
        ids=torch.from_numpy(tokens.ids[own.ravel()]),
        eot=torch.from_numpy(tokens.eot[own.ravel()]),
        pids=torch.tensor([item.label for item in items]),
        items=torch.tensor(numbers),
        where=tuple(item.where for item in items),
        groups=None if groups is None else groups[numbers],
        replaced=torch.tensor([item.is_replaced for item in items]) if has_weak_positives else None,
        wrong_ids=None if wrong is None else torch.from_numpy(tokens.ids[wrong]),
        wrong_eot=None if wrong is None else torch.from_numpy(tokens.eot[wrong]),
    )
