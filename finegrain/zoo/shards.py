"""Weights that are split into several safetensors files, of which an index says what is where."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from finegrain.errors import WeightsError
from finegrain.zoo.json_file import part, read_json

INDEX_SUFFIX = ".safetensors.index.json"
INDEXES = ("model.safetensors.index.json", "open_clip_model.safetensors.index.json")
"""Usual names of an index, the preferred first."""

MAX_SHARDS = 256
"""Largest number of files; the largest model with a known layout has fewer than ten."""

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


def is_shard(name: str) -> bool:
    """Whether a file is one of several that make up a model."""
    return _SHARD.fullmatch(name) is not None


def shards_of(index: str, names: Collection[str], where: str) -> tuple[str, ...]:
    """The files that belong to an index, in the order of their numbers.

    Args:
        index: Path of the index.
        names: All paths of the repository or folder, with ``/`` between folders.
        where: The repository or folder, for messages.

    Raises:
        WeightsError: A file is missing, or there are more than :data:`MAX_SHARDS`.
    """
    stem = index.removesuffix(INDEX_SUFFIX)
    hits = [hit for hit in map(_SHARD.fullmatch, names) if hit and hit["stem"] == stem]
    counts = {int(hit["count"]) for hit in hits}
    count = next(iter(counts), 0)
    expected = [f"{stem}-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    missing = [name for name in expected[: MAX_SHARDS + 1] if name not in names]
    if len(counts) != 1 or not 0 < count <= MAX_SHARDS or missing:
        raise WeightsError(
            f"{where} has {index}, whose weights are split into files such as "
            f"{stem}-00001-of-00002.safetensors; expected all of 1 to {MAX_SHARDS} files, got "
            f"{len(hits)}" + (f" without {', '.join(missing[:3])}" if missing else "")
        )
    return tuple(expected)


def read_index(index: Path) -> Mapping[Path, frozenset[str]]:
    """The files that an index names, with the names of the tensors in each.

    Raises:
        WeightsError: The index is damaged, or names a file outside its folder or a missing one.
    """
    weight_map = part(read_json(index), "weight_map", index)
    tensors: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or PurePosixPath(name).name != name or not is_shard(name):
            raise WeightsError(
                f"{index} says that {tensor:.60} is in {name!r:.60}; expected a file in the same "
                "folder, such as model-00001-of-00002.safetensors"
            )
        tensors.setdefault(name, set()).add(tensor)
    names = [path.name for path in index.parent.iterdir() if path.is_file()]
    expected = shards_of(index.name, names, str(index.parent))
    if set(expected) != tensors.keys():
        raise WeightsError(
            f"{index} names the files {', '.join(sorted(tensors)[:5]) or 'of no tensor'}; expected "
            f"{', '.join(expected[:5])}"
        )
    return {index.parent / name: frozenset(tensors[name]) for name in expected}
