"""Checks that the splits of a user's data share no product and no picture."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path

from finegrain.errors import DataError
from finegrain.records import Split


def refuse_shared_products(splits: Mapping[str, Split], source: str) -> None:
    """Check that no product is in two splits.

    Raises:
        DataError: A product is in two splits.
    """
    pids = {name: {str(s.pid) for s in split.samples if s.pid is not None}
            for name, split in splits.items()}  # fmt: skip
    for first, second in combinations(pids, 2):
        if shared := pids[first] & pids[second]:
            raise DataError(
                f"{source}: expected each product in one split, got {len(shared)} both in split "
                f"{first} and in {second}, such as {min(shared)!r}. A model would be tested on its "
                "training data; give each product one split, or name another pid column."
            )


def refuse_shared_pictures(splits: Mapping[str, Split], source: str) -> None:
    """Check that no picture is in two splits, under any name.

    Only files of equal size are read and compared.

    Raises:
        DataError: A picture is in two splits.
    """
    paths = {name: dict.fromkeys(s.image for s in split.samples) for name, split in splits.items()}
    by_size: dict[int, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for name, images in paths.items():
        for image in images:
            by_size[_size(image)][name].append(image)
    for same_size in by_size.values():
        _compare(same_size, source)


def _compare(same_size: Mapping[str, Iterable[Path]], source: str) -> None:
    if len(same_size) < 2:
        return
    seen: dict[bytes, tuple[str, Path]] = {}
    for name, images in same_size.items():
        for image in images:
            first, other = seen.setdefault(_digest(image), (name, image))
            if first != name:
                raise DataError(
                    f"{source}: {image} in split {name} is the same picture as {other} in {first}. "
                    "A model would be tested on its training data; give both the same split."
                )


def _size(image: Path) -> int:
    try:
        return image.stat().st_size
    except OSError as error:
        raise DataError(f"expected a readable picture, got {error}.") from error


def _digest(image: Path) -> bytes:
    try:
        with image.open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError as error:
        raise DataError(f"expected a readable picture, got {error}.") from error
