"""Which files of a published repository make up a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from finegrain.errors import WeightsError
from finegrain.zoo.shards import INDEX_SUFFIX, INDEXES, is_shard, shards_of

Kind = Literal["onnx", "torch"]

PAIRS: tuple[tuple[str, ...], ...] = (
    ("visual/model.onnx", "textual/model.onnx"),
    ("onnx/vision_model.onnx", "onnx/text_model.onnx"),
)
"""Image tower and text tower of the published ONNX layouts, the preferred first."""
OTHER_PAIRS: tuple[tuple[str, ...], ...] = (
    ("onnx/model.onnx",),
    ("onnx/vision_model_fp16.onnx", "onnx/text_model_fp16.onnx"),
)
"""ONNX layouts that are used where there are no PyTorch weights: both towers in one graph, and
towers in half precision."""

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin",
           "open_clip_pytorch_model.bin")  # fmt: skip
"""Usual names of weight files, the preferred first; they hold the same model."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")

COMPANIONS = frozenset(
    {
        "README.md",
        "added_tokens.json",
        "config.json",
        "config.yaml",
        "configs.yaml",
        "merges.txt",
        "open_clip_config.json",
        "preprocess_cfg.json",
        "preprocessor_config.json",
        "processor_config.json",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
"""Configurations, tokenizers and the model card. Nothing else of a repository is downloaded, and
no code in particular."""

_PART = re.compile(r"-\d{5}-of-\d{5}\.")
_TRAINING = re.compile(r"^(optimizer|scheduler|training_args|rng_state|scaler)")
_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The files of a model.

    Attributes:
        kind: Whether the weights are two ONNX towers or a PyTorch state dict.
        weights: Paths of the weights. The first is the image tower, or the index of several files.
        companions: Paths of the configurations, tokenizers and the model card.
    """

    kind: Kind
    weights: tuple[str, ...]
    companions: tuple[str, ...]


def choose_files(names: Collection[str], where: str, file: str | None = None) -> Choice:
    """Choose the files of a model.

    Two ONNX towers in a published layout are preferred, because they need no PyTorch. Next are
    the usual names of weight files, safetensors first, and then of an index of several files. A
    repository with other names must have one weight file, or ``file`` names it.

    Args:
        names: All paths of the repository, with ``/`` between folders.
        where: The repository or folder, for messages.
        file: The weight file, the index of several, or the image tower of an ONNX pair.

    Raises:
        WeightsError: There are no weights in a layout that is known, or several models.
    """
    weights = _named(names, where, file) if file is not None else _recognised(names, where)
    folders = {"", *(_parent(name) for name in weights)}
    companions = {n for n in names if PurePosixPath(n).name in COMPANIONS and _parent(n) in folders}
    # The towers of a pair may keep large tensors in files beside them.
    graphs = tuple(w for w in weights if w.endswith(".onnx"))
    beside = {n for n in names for w in graphs if n.startswith((f"{w}_", f"{w}."))}
    return Choice(
        kind="onnx" if weights[0].endswith(".onnx") else "torch",
        weights=(*weights, *sorted(beside)),
        companions=tuple(sorted(companions)),
    )


def _named(names: Collection[str], where: str, file: str) -> tuple[str, ...]:
    if file not in names:
        raise WeightsError(f"{where} has no file {file!r}; it has {_list(_weights(names))}")
    if file.endswith(INDEX_SUFFIX):
        return (file, *shards_of(file, names, where))
    if is_shard(file):
        raise WeightsError(
            f"{file} of {where} is one of several files of a model; choose their index, such as "
            f"--file {INDEXES[0]}"
        )
    if not file.endswith(".onnx"):
        return (file,)
    pair = next((p for p in PAIRS + OTHER_PAIRS if set(p) <= set(names)), None)
    if pair is None or file not in pair:
        read = " with ".join(pair) if pair else "none of its graphs"
        raise WeightsError(
            f"finegrain cannot read {file} of {where}; of its ONNX files it reads {read}"
        )
    return pair


def _recognised(names: Collection[str], where: str) -> tuple[str, ...]:
    for pair in PAIRS:
        if set(pair) <= set(names):
            return pair
    usual = OPEN_CLIP_WEIGHTS + WEIGHTS if OPEN_CLIP_CONFIG in names else WEIGHTS
    for name in usual:
        if name in names:
            return (name,)
    indexes = [name for name in INDEXES if name in names]
    if indexes:
        index = indexes[-1] if OPEN_CLIP_CONFIG in names else indexes[0]
        return (index, *shards_of(index, names, where))
    weights = _weights(names)
    if len(weights) == 1:
        return (weights[0],)
    for pair in OTHER_PAIRS:
        if not weights and set(pair) <= set(names):
            return pair
    if any(_PART.search(name) for name in names):
        raise WeightsError(
            f"the weights of {where} are split into several files, of which finegrain reads "
            f"safetensors with the index {INDEXES[0]}; expected these, or one file. Convert them "
            "with the library that wrote them, and pull the result by --from PATH"
        )
    if weights:
        raise WeightsError(
            f"{where} has {len(weights)} weight files, and finegrain cannot tell which is the "
            f"model: {_list(weights)}. Choose one by --file NAME"
        )
    raise WeightsError(
        f"{where} has no weights in a layout that finegrain knows: expected {WEIGHTS[0]}, "
        f"{OPEN_CLIP_WEIGHTS[0]}, {' with '.join(PAIRS[0])}, or {' with '.join(PAIRS[1])}; it "
        f"has {_list(names)}"
    )


def _weights(names: Iterable[str]) -> list[str]:
    """The weight files among names; safetensors alone if there are any."""
    weights = [
        name
        for name in sorted(names)
        if name.endswith(SUFFIXES)
        and not _TRAINING.match(PurePosixPath(name).name)
        and not _PART.search(name)
    ]
    return [name for name in weights if name.endswith(SUFFIXES[0])] or weights


def _parent(name: str) -> str:
    parent = str(PurePosixPath(name).parent)
    return "" if parent == "." else parent


def _list(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return (", ".join(ordered[:_SHOWN]) or "no files at all") + more
