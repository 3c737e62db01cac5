"""BERT's word pieces (Devlin et al. 2019, https://arxiv.org/abs/1810.04805) for ALBEF captions.

The tokenizer file itself removes punctuation, and splits words at hyphens and slashes. It does so
for plans of older versions, which do not state the cleaning of captions.
"""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

from finegrain.errors import DataError
from finegrain.preprocess.cleaning import ALBEF_CLEANING, Cleaning
from finegrain.preprocess.text import Tokenizer

SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
"""Ids of the special tokens of BERT-base uncased, and of models that use its vocabulary."""

_MAX_BYTES = 16 << 20
_REMOVED = Regex(r"""[,.'!?"()*#:;~]""")
_SPLITTING = Regex("[-/]")


def word_piece_tokenizer(
    vocabulary: Path, context_length: int, cleaning: Cleaning = ALBEF_CLEANING
) -> Tokenizer:
    """Build the tokenizer of a ``vocab.txt`` with the layout of BERT-base uncased.

    The ids of a caption are ``[CLS]``, its word pieces and ``[SEP]``. The names of special tokens
    in a caption are ordinary text.

    Args:
        vocabulary: File with one piece per line; the number of the line from 0 is the id.
        context_length: Maximum number of tokens, including ``[CLS]`` and ``[SEP]``.
        cleaning: Cleaning of captions.

    Raises:
        DataError: The file is missing, too large, not text, or has another layout.
    """
    ids = {piece: id_ for id_, piece in enumerate(_read(vocabulary))}
    misplaced = [f"{name} at {id_}" for name, id_ in SPECIAL.items() if ids.get(name) != id_]
    if misplaced:
        raise DataError(
            f"{vocabulary} is not laid out as the vocabulary of bert-base-uncased: expected "
            f"{', '.join(misplaced)}, counted from 0. Pass that model's own vocab.txt."
        )
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab=ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(_REMOVED, ""),
            normalizers.Replace(_SPLITTING, " "),
            # Some datasets after CUHK-PEDES write <person> for the described person.
            normalizers.Replace("<person>", "person"),
            normalizers.BertNormalizer(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, SPECIAL[name]) for name in ("[CLS]", "[SEP]")],
    )
    return Tokenizer(tokenizer, context_length=context_length, cleaning=cleaning)


def _read(path: Path) -> list[str]:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path} has {size} bytes; a vocabulary has up to {_MAX_BYTES}")
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the vocabulary {path} cannot be read: {error}. Expected the vocab.txt of "
            "bert-base-uncased, one piece per line."
        ) from error
