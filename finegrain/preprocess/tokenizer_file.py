"""Tokenizer files of published models: of the tokenizers library, of BERT, of SentencePiece."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from finegrain.bounded.file import read_bounded
from finegrain.errors import DataError, MissingExtraError, PlanError
from finegrain.preprocess.cleaning import Cleaning
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.preprocess.sentence_pieces import UNIGRAM, parse_sentence_pieces
from finegrain.preprocess.text import Tokenizer, parse_tokenizer

MAX_BYTES = 128 << 20
"""Maximum size of a tokenizer file; that of SigLIP 2 with its 256,000 pieces has 34 MB."""

_START, _END, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"


def read_tokenizer(
    file: Path, *, context_length: int, cleaning: Cleaning, vocabulary: int
) -> Tokenizer:
    """Read the tokenizer file of a published model.

    Args:
        file: A file of the ``tokenizers`` library (``.json``), the word pieces of a BERT without
            upper case (``.txt``, one piece per line), or a unigram model of SentencePiece
            (``.model``).
        context_length: Maximum number of tokens, including those at the start and end.
        cleaning: Cleaning of captions.
        vocabulary: Number of ids that the text tower knows.

    Raises:
        DataError: The file is missing, too large or not a tokenizer, or has ids beyond the
            vocabulary of the tower.
        MissingExtraError: The file is of SentencePiece, and protobuf is not installed.
    """
    loaded = _loaded(file)
    largest = max(loaded.get_vocab().values(), default=0)
    if largest >= vocabulary:
        raise DataError(
            f"{file} makes ids up to {largest}, and the text tower knows {vocabulary} tokens. It "
            "is the tokenizer of another model."
        )
    try:
        return Tokenizer(loaded, context_length=context_length, cleaning=cleaning)
    except PlanError as error:
        raise DataError(f"{file} is not the tokenizer of a text tower: {error}") from error


def tokenizer_of(
    file: str | None, *, context_length: int, cleaning: Cleaning, vocabulary: int
) -> Tokenizer:
    """Make the tokenizer of a text tower: that of a file, or CLIP's without one.

    The arguments and errors are those of :func:`read_tokenizer`.
    """
    if file is None:
        return clip_tokenizer(context_length, cleaning=cleaning)
    return read_tokenizer(
        Path(file), context_length=context_length, cleaning=cleaning, vocabulary=vocabulary
    )


def read_vocabulary(file: Path) -> dict[str, int]:
    """Id of each token of a tokenizer file.

    Raises:
        DataError: The file is missing, too large or not a tokenizer.
    """
    ids: dict[str, int] = _loaded(file).get_vocab()
    return ids


def token_ids(file: Path, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts by a tokenizer file as it is, with the tokens of start and end.

    Raises:
        DataError: The file is missing, too large or not a tokenizer.
    """
    loaded = _loaded(file)
    loaded.no_padding()
    loaded.no_truncation()
    return [loaded.encode(text).ids for text in texts]


def _loaded(file: Path) -> tokenizers.Tokenizer:
    data = read_bounded(file, MAX_BYTES, DataError)
    try:
        if file.suffix == ".model":
            return _sentence_pieces(data)
        text = data.decode("utf-8")
        return _word_pieces(text) if file.suffix == ".txt" else parse_tokenizer(text)
    except MissingExtraError:
        raise
    except Exception as error:  # the libraries raise nothing more specific
        raise DataError(
            f"{file} is not a tokenizer: {str(error) or type(error).__name__:.200}. Expected a "
            "tokenizer.json of the tokenizers library, a vocab.txt with one word piece per line, "
            "or a spiece.model of SentencePiece. Copy it again from its source."
        ) from error


def _sentence_pieces(data: bytes) -> tokenizers.Tokenizer:
    """A unigram model of SentencePiece as the ``tokenizers`` library expresses it.

    A caption ends with ``</s>`` and begins with a blank, as in T5 and SigLIP.
    """
    model = parse_sentence_pieces(data)
    if model.trainer_spec.model_type != UNIGRAM:
        raise ValueError("expected a unigram model")
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, model.trainer_spec.unk_id, False))
    charsmap = model.normalizer_spec.precompiled_charsmap
    # The library normalises a long cluster of characters one by one, and would miss accents that
    # are not yet composed.
    steps = [normalizers.NFC(), normalizers.Precompiled(charsmap)] if charsmap else []
    tokenizer.normalizer = normalizers.Sequence(
        [*steps, normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    end = "</s>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return tokenizer


def _word_pieces(text: str) -> tokenizers.Tokenizer:
    """The tokenizer of BERT without upper case, for a vocabulary of any language."""
    ids = {piece: id_ for id_, piece in enumerate(text.removesuffix("\n").splitlines())}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab=ids, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}",
        special_tokens=[(name, ids[name]) for name in (_START, _END)],
    )
    return tokenizer
