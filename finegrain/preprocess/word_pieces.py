"""BERT's word pieces (Devlin et al. 2019), read as ALBEF reads captions.

The file itself leaves out punctuation that ends sentences or quotes, and parts words at hyphens
and slashes: plans that state no cleaning were written when only the file did so.
"""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

from finegrain.errors import DataError
from finegrain.preprocess.cleaning import ALBEF_CLEANING, Cleaning
from finegrain.preprocess.text import Tokenizer

SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
"""Where BERT-base uncased has what is no word, and where models trained on it look for it."""

_MAX_BYTES = 16 << 20
_LEFT_OUT = Regex(r"""[,.'!?"()*#:;~]""")
_PARTING = Regex("[-/]")


def word_piece_tokenizer(
    vocabulary: Path, context_length: int, cleaning: Cleaning = ALBEF_CLEANING
) -> Tokenizer:
    """Build the tokenizer of a ``vocab.txt`` that is laid out as that of BERT-base uncased.

    A caption becomes ``[CLS]``, its pieces and ``[SEP]``. Special tokens that are spelled out
    in a caption are text.

    Args:
        vocabulary: One piece a line; its line is its id.
        context_length: Most tokens of a caption, ``[CLS]`` and ``[SEP]`` included.
        cleaning: What is done to a caption first.

    Raises:
        DataError: The file is missing, too large, not text, or laid out otherwise.
    """
    ids = {piece: id_ for id_, piece in enumerate(_read(vocabulary))}
    elsewhere = [f"{name} at {at}" for name, at in SPECIAL.items() if ids.get(name) != at]
    if elsewhere:
        raise DataError(
            f"{vocabulary} is not laid out as the vocabulary of bert-base-uncased: expected "
            f"{', '.join(elsewhere)}, counted from 0. Give that model's own vocab.txt."
        )
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab=ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(_LEFT_OUT, ""),
            normalizers.Replace(_PARTING, " "),
            # How CUHK-PEDES' successors write of whom they speak.
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
            "bert-base-uncased, one piece a line."
        ) from error
