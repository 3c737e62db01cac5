"""Training batches as a pure function of seed, epoch and position.

There is no random state. A resumed run therefore gets the same batches as an uninterrupted one,
for any number of loading processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from finegrain.data.augment import Augmentation
from finegrain.data.caption_changes import drop_words
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
        captions: The same number for every item. With ``wrong_captions``, the last one is of
            another identity.
        label: Number of the identity, from 0.
        where: Source of the item, for error messages.
        number: Index of the item in the split.
        is_replaced: Whether the weak positive differs from the first caption.
    """

    pixels: NDArray[np.uint8]
    captions: tuple[str, ...]
    label: int
    where: str
    number: int
    is_replaced: bool


class Pairs(Dataset[Item]):
    """All (picture, caption) pairs of a split, each augmented with its own seed.

    - ``captions`` above 1: an item is a picture with this number of its captions, drawn again in
      each epoch. If a picture has fewer captions, some are repeated.
    - ``weak_positives``: an item has a second caption. With this probability it is drawn from all
      captions of the same person (a weak positive, Bai et al. 2023); otherwise it is the first
      caption again.
    - ``wrong_captions``: an item has one more caption, of another identity; see
      :class:`WrongCaptions`.

    Identities are numbered from 0 without gaps, in the order of the dataset's ids, as a
    classifier needs. For CUHK-PEDES, whose ids start at 1, released classifiers were trained
    with this numbering.
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
    def identities(self) -> list[int]:
        """Number of the identity of each item."""
        return [self._labels[i] for i, _ in self._items]

    @property
    def groups(self) -> Tensor | None:
        """Number of the sub-category of each item; see :class:`~finegrain.methods.Batch`."""
        categories = [sample.metadata.get(SUBCATEGORY) for sample in self._split.samples]
        names = sorted({str(name) for name in categories if name is not None})
        numbers = {name: n for n, name in enumerate(names, start=1)}
        of_samples = [0 if name is None else numbers[str(name)] for name in categories]
        return torch.tensor([of_samples[i] for i, _ in self._items]) if names else None

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        i, first = self._items[index]
        sample = self._split.samples[i]
        seeds = np.random.SeedSequence((self._seed, epoch, index)).generate_state(4)
        drawn = [first] if self._captions == 1 else self._draw(len(sample.captions), int(seeds[1]))
        captions = [sample.captions[j] for j in drawn]
        if self.has_weak_positives:
            captions.append(self._weak_positive(self._labels[i], captions[0], int(seeds[3])))
        is_replaced = self.has_weak_positives and captions[-1] != captions[0]
        if self._wrong is not None:
            captions.append(self._wrong.draw(sample, self._labels[i], (self._seed, epoch, index)))
        if self._drop_words:
            # Words are counted after the cleaning that the method applies.
            captions = [
                drop_words(self._cleaning.reworded(caption), self._drop_words, int(seeds[2]) + n)
                for n, caption in enumerate(captions)
            ]
        return Item(
            pixels=self._augmentation(self._pictures[i], int(seeds[0])),
            captions=tuple(captions),
            label=self._labels[i],
            where=f"{sample.image}{drawn}",
            number=index,
            is_replaced=is_replaced,
        )

    def _weak_positive(self, label: int, caption: str, seed: int) -> str:
        """Any caption of the person with probability ``weak_positives``, else ``caption``."""
        rng = np.random.default_rng(seed)
        if rng.random() >= self._weak_positives:
            return caption
        written = self._written_of[label]
        return written[rng.integers(len(written))]

    def _draw(self, count: int, seed: int) -> list[int]:
        """Draw indices of captions; all are used once before one is repeated."""
        order = np.random.default_rng(seed).permutation(count).tolist()
        return list(islice(cycle(order), self._captions))


class Order(Sampler[list[Key]]):
    """Keys of the batches of this process, shuffled in each epoch with the same seed everywhere.

    With ``drop_last``, an incomplete last batch is left out, since a contrastive loss of a small
    batch is an easier task. Otherwise it is divided into equal parts for the processes; a
    remainder is left out.
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
        """Set the epoch and the batch at which the next iteration starts."""
        self._start = (epoch, batch)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, first = self._start
        shuffled = self._shuffled(np.random.default_rng((self._seed, epoch)))
        step = self._batch_size * self._world.size
        for batch in range(first, len(self)):
            start = batch * step
            share = min(step, self._num_pairs - start) // self._world.size
            start += self._world.rank * share
            yield [(epoch, int(i)) for i in shuffled[start : start + share]]

    def _shuffled(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Indices of the items of an epoch in their order."""
        return rng.permutation(self._num_pairs)


def make_loader(
    pairs: Pairs, order: Order, tokenizer: Tokenizer, *, workers: int, device: torch.device
) -> DataLoader[Batch]:
    """Make the loader of a run, which assembles batches in ``workers`` processes."""
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
        # A separate generator: otherwise every resume would advance the model's random state.
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
