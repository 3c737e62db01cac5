"""Finding the tokenizer of a published model in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finegrain.errors import DataError, WeightsError
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.preprocess.tokenizer_file import read_vocabulary, token_ids
from finegrain.zoo.json_file import read_json

JSON, WORD_PIECES = "tokenizer.json", "vocab.txt"
CONFIG = "tokenizer_config.json"
_SPECIAL = "special_tokens_map.json"

_COMPARED = (
    "a photo of a woman in a red coat",
    "men's t-shirt, size 42; blue & white!",
    "houndstooth cardigan with embroidered neckline",
)


def find_tokenizer(folder: Path, names: Sequence[str] = (JSON,)) -> Path:
    """The first of some tokenizer files that is in the folder.

    Raises:
        WeightsError: The folder has none.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"the text tower needs its own tokenizer, and {folder} has no {' or '.join(names)}. Copy "
        "the file from the repository of the model"
    )


def check_is_clips(folder: Path) -> None:
    """Check the ``tokenizer.json`` in the folder of a CLIP, if there is one.

    It is compared with CLIP's on a few texts, which every cleaning leaves as they are.

    Raises:
        WeightsError: It gives other ids, or is not a tokenizer.
    """
    file = folder / JSON
    if not file.is_file():
        return
    batch = clip_tokenizer().encode(_COMPARED)
    try:
        stated = token_ids(file, _COMPARED)
    except DataError as error:
        raise WeightsError(str(error)) from error
    for text, got, row, end in zip(_COMPARED, stated, batch.ids, batch.eot, strict=True):
        expected = row[: end + 1].tolist()
        if got != expected:
            raise WeightsError(
                f"{file} gives {text!r} the ids {got[:12]}, and CLIP's tokenizer {expected[:12]}. "
                "The model was trained with another tokenizer, and finegrain has only CLIP's for "
                "this layout"
            )


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """The settings of a tokenizer; those in the newer file are preferred."""
    settings: dict[str, Any] = {}
    for name in (_SPECIAL, CONFIG):
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    return settings


def pad_id(tokenizer: Path, default: int) -> int:
    """Id of the padding token that the files next to a tokenizer name, or a default.

    Raises:
        WeightsError: The tokenizer has no such token.
    """
    token = read_tokenizer_config(tokenizer.parent).get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    if token is None:
        return default
    try:
        ids = read_vocabulary(tokenizer)
    except DataError as error:
        raise WeightsError(str(error)) from error
    if not isinstance(token, str) or token not in ids:
        raise WeightsError(f"{tokenizer} has no token {token!r:.60}, with which texts are padded")
    return ids[token]


def lower_cases(tokenizer: Path) -> bool:
    """Whether the normaliser of a ``tokenizer.json`` lower-cases letters."""
    try:
        normaliser = json.loads(tokenizer.read_text(encoding="utf-8")).get("normalizer")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{tokenizer} is not a tokenizer: {error}") from error
    return '"Lowercase"' in json.dumps(normaliser)
