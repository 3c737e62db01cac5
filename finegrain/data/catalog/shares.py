"""Deterministic splits by product, for catalogues without splits."""

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
"""Metadata columns with a product's id, the widest first, so that variants stay together."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of a catalogue for training, validation and test.

    Raises:
        DataError: A share is not from 0 to 1, or their sum is not 1.
    """

    train: float = 0.9
    val: float = 0.05
    test: float = 0.05

    def __post_init__(self) -> None:
        shares = asdict(self)
        if min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
            raise DataError(f"expected shares from 0 to 1 with a sum of 1, got {shares}")

    def of(self, product: str) -> str:
        """The split of a product. It does not depend on other products."""
        digest = hashlib.sha256(product.encode("utf-8", "surrogateescape")).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.train:
            return "train"
        return "val" if place < self.train + self.val else "test"


DEFAULT_SHARES = Shares()


def divided(
    splits: Mapping[str, Split], shares: Shares | None, *, columns: Sequence[str] = PRODUCT_COLUMNS
) -> Mapping[str, Split]:
    """Divide a catalogue into splits. A catalogue with splits is returned unchanged.

    All pictures of a product are in the same split, and so are products that share a picture. An
    empty split is left out. Problems are reported with the first split.

    Args:
        splits: The splits from a reader of catalogues.
        shares: Shares of the splits. None leaves a single split.
        columns: Metadata columns. The first value is the id of a product. Without a value, the id
            is the file name of the product's first picture.
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
    """An id for each sample, the same for products that share a picture, directly or not."""
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
