"""Splits for catalogues that have none: by product, and the same each time they are read."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from finegrain.data.catalog.table import DEFAULT_SPLIT
from finegrain.errors import DataError
from finegrain.records import Sample, Scalar, Split

PRODUCT_COLUMNS = ("item_group_id", "product_id")
"""Metadata that names a product, the widest first: its colours and sizes stay together."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How much of a catalogue is trained on, and how much it is judged by.

    Raises:
        DataError: The shares are not from 0 to 1, or not 1 together.
    """

    train: float = 0.9
    val: float = 0.05
    test: float = 0.05

    def __post_init__(self) -> None:
        shares = asdict(self)
        if min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
            raise DataError(f"expected shares from 0 that are 1 together, got {shares}")

    def of(self, product: str) -> str:
        """The split of a product: whatever else a catalogue holds, now or later, it stays."""
        digest = hashlib.sha256(product.encode("utf-8", "surrogateescape")).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.train:
            return "train"
        return "val" if place < self.train + self.val else "test"


DEFAULT_SHARES = Shares()


def divided(
    splits: Mapping[str, Split], shares: Shares | None, *, columns: Sequence[str] = PRODUCT_COLUMNS
) -> Mapping[str, Split]:
    """A catalogue with a split for each share; one that has splits of its own as it is.

    All pictures of a product are in the same split, with all products that share one of them.
    A split that no product falls into is left out; what could not be read is reported with the
    first.

    Args:
        splits: As a reader of catalogues gives them.
        shares: None leaves all in one split.
        columns: Metadata of which the first value is a product's id. Where there is none, it is
            the file name of the product's first picture.
    """
    if shares is None or set(splits) != {DEFAULT_SPLIT}:
        return splits
    whole = splits[DEFAULT_SPLIT]
    parts: dict[str, list[Sample]] = defaultdict(list)
    for sample, product in zip(whole.samples, _products(whole.samples, columns), strict=True):
        parts[shares.of(product)].append(sample)
    names = [name for name in asdict(shares) if name in parts]
    return {
        name: replace(
            whole,
            name=name,
            samples=tuple(parts[name]),
            problems=whole.problems if name == names[0] else (),
            notes=whole.notes if name == names[0] else (),
        )
        for name in names
    }


def _products(samples: Sequence[Sample], columns: Sequence[str]) -> list[str]:
    """An id for each sample; products that share a picture, directly or not, have the same."""
    ids = [_product_id(sample, columns) for sample in samples]
    keys = [
        product if sample.pid is None else str(sample.pid)
        for sample, product in zip(samples, ids, strict=True)
    ]
    leader: dict[str | Path, str | Path] = {}

    def lead(key: str | Path) -> str | Path:
        while leader.setdefault(key, key) != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    for sample, key in zip(samples, keys, strict=True):
        leader[lead(sample.image)] = lead(key)
    first: dict[str | Path, str] = {}
    return [first.setdefault(lead(key), product) for key, product in zip(keys, ids, strict=True)]


def _product_id(sample: Sample, columns: Sequence[str]) -> str:
    stated: list[Scalar] = [sample.metadata.get(column) for column in columns]
    return next((str(value) for value in stated if value is not None), sample.image.name)
