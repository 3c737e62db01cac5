"""Splits for catalogues that have none: by product, and the same each time they are read."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

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

    All pictures of a product are in the same split. A split that no product falls into is
    left out; what could not be read is reported with the first.

    Args:
        splits: As a reader of catalogues gives them.
        shares: None leaves all in one split.
        columns: Metadata of which the first value is a product's id. Where there is none, it is
            the file name of the product's first picture.
    """
    if shares is None or set(splits) != {DEFAULT_SPLIT}:
        return splits
    whole = splits[DEFAULT_SPLIT]
    chosen: dict[str, str] = {}
    parts: dict[str, list[Sample]] = defaultdict(list)
    for sample in whole.samples:
        product = _product_id(sample, columns)
        key = product if sample.pid is None else str(sample.pid)
        parts[chosen.setdefault(key, shares.of(product))].append(sample)
    names = [name for name in asdict(shares) if name in parts]
    return {
        name: Split(
            name=name,
            samples=tuple(parts[name]),
            problems=whole.problems if name == names[0] else (),
        )
        for name in names
    }


def _product_id(sample: Sample, columns: Sequence[str]) -> str:
    stated: list[Scalar] = [sample.metadata.get(column) for column in columns]
    return next((str(value) for value in stated if value is not None), sample.image.name)
