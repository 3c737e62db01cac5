"""The words that a run was trained on, in its folder."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

from finegrain.bounded.file import read_bounded
from finegrain.errors import CheckpointError, PlanError
from finegrain.models import TextConfig
from finegrain.preprocess import Tokenizer
from finegrain.preprocess.vocabulary import MAX_BYTES, VOCABULARY, Vocabulary
from finegrain.recipe import Recipe
from finegrain.records import Split

_TABLE = "text_tower.token_embedding.weight"


def reads_only_captions(recipe: Recipe) -> bool:
    """Whether a text tower knows no words but those of its training captions.

    True for CLIP's text tower that starts from random weights and whose token table is trained.
    """
    return (
        isinstance(recipe.method.text, TextConfig)
        and recipe.weights is None
        and recipe.lora is None
        and not any(fnmatchcase(_TABLE, pattern) for pattern in recipe.frozen)
    )


def write_vocabulary(run: Path, split: Split, tokenizer: Tokenizer) -> None:
    """Write the words and tokens of the training captions into a run folder.

    Args:
        run: The run folder.
        split: The training split.
        tokenizer: The tokenizer of the training.
    """
    captions = (caption for sample in split.samples for caption in sample.captions)
    data = Vocabulary.of(captions, tokenizer).to_json()
    file, unfinished = run / VOCABULARY, run / f".{VOCABULARY}.tmp"
    if file.exists() and file.read_bytes() == data:
        return  # a resumed training
    with unfinished.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(unfinished, file)


def read_vocabulary(run: Path) -> Vocabulary | None:
    """The vocabulary of a run; None for a pretrained text tower, and for a run of 1.0 or before.

    Raises:
        CheckpointError: The file is damaged.
    """
    file = run / VOCABULARY
    if not file.exists():
        return None
    try:
        return Vocabulary.from_json(read_bounded(file, MAX_BYTES, CheckpointError))
    except PlanError as error:
        raise CheckpointError(
            f"{file}: {error} To export without it, delete the file; queries are then read as "
            "they are."
        ) from error
