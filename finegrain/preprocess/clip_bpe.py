"""CLIP's byte-pair encoding (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

Building the tokenizer requires the merges of ``open_clip`` and the ``regex`` library, with which
the reference splits words. The resulting file of the ``tokenizers`` library requires neither.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import sys
import zlib
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, processors

from finegrain.errors import DataError, MissingExtraError, require
from finegrain.preprocess.cleaning import CLIP_CLEANING, Cleaning
from finegrain.preprocess.text import Tokenizer

_FILE = "bpe_simple_vocab_16e6.txt.gz"
_NUM_MERGES = 49152 - 256 - 2
_MAX_BYTES = 16 << 20
_START, _END = "<start_of_text>", "<end_of_text>"
_END_OF_WORD = "</w>"


def clip_tokenizer(
    context_length: int = 77,
    vocabulary: Path | None = None,
    cleaning: Cleaning = CLIP_CLEANING,
) -> Tokenizer:
    """Build the tokenizer of CLIP: 49408 ids, start 49406, end-of-text 49407.

    The ids equal those of ``open_clip.SimpleTokenizer`` with one exception: the reference turns
    the texts ``<start_of_text>`` and ``<end_of_text>`` in a caption into the special ids, while
    here they are ordinary text.

    Args:
        context_length: Maximum number of tokens, including the start and end tokens.
        vocabulary: A copy of ``bpe_simple_vocab_16e6.txt.gz``; by default the one inside the
            installed ``open_clip``.
        cleaning: Cleaning of captions.

    Raises:
        MissingExtraError: ``open_clip`` or ``regex`` is not installed.
        DataError: ``vocabulary`` is missing or is not CLIP's.
    """
    merges = _read_merges(vocabulary or _installed_vocabulary())
    # The order of the pieces determines the ids.
    symbols = _byte_symbols()
    pieces = [*symbols, *(symbol + _END_OF_WORD for symbol in symbols)]
    pieces += ["".join(merge) for merge in merges] + [_START, _END]
    ids = {piece: id_ for id_, piece in enumerate(pieces)}

    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=ids, merges=merges, end_of_word_suffix=_END_OF_WORD)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_word_pattern()), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}",
        special_tokens=[(_START, ids[_START]), (_END, ids[_END])],
    )
    return Tokenizer(tokenizer, context_length=context_length, cleaning=cleaning)


def _installed_vocabulary() -> Path:
    # find_spec does not run open_clip, which would import torch
    spec = importlib.util.find_spec("open_clip")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (file := Path(folder, _FILE)).is_file():
            return file
    raise MissingExtraError(
        f"open_clip brings CLIP's vocabulary {_FILE} and is not installed. "
        'Install it with: pip install "finegrain[train]", or pass vocabulary='
    )


def _read_merges(file: Path) -> list[tuple[str, str]]:
    try:
        with gzip.open(file) as stream:
            lines = stream.read(_MAX_BYTES).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(
            f"expected CLIP's vocabulary {_FILE} at {file}, could not read it ({error})."
        ) from error
    # The first line is a version; the file holds more merges than CLIP uses.
    merges = [tuple(line.split(" ")) for line in lines[1 : 1 + _NUM_MERGES]]
    pairs = [(merge[0], merge[1]) for merge in merges if len(merge) == 2]
    if len(pairs) != _NUM_MERGES:
        raise DataError(
            f"expected CLIP's {_NUM_MERGES} merges in {file}, got {len(pairs)}. "
            f"Pass the original {_FILE}."
        )
    return pairs


def _byte_symbols() -> list[str]:
    """Return a printable character for each byte, printable bytes first (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]


@functools.cache  # tests every Unicode character, which is expensive
def _word_pattern() -> str:
    r"""Return CLIP's word pattern with every Unicode class written out.

    The reference splits words by ``'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+``
    with the ``regex`` library, ignoring case. The engine inside ``tokenizers`` has an older version
    of Unicode. Ignoring case in ``regex`` has two special cases: ``'ſ`` is a contraction, and
    U+0345, whose upper case is a letter, is neither a letter nor a symbol. Taking the characters
    of each class from ``regex`` reproduces all of this, and stores it in the file.
    """
    letters, digits, symbols = map(_ranges, (r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]"))
    return f"'[sſ]|'t|'re|'ve|'m|'ll|'d|[{letters}]+|[{digits}]|[{symbols}]+"


def _ranges(character_class: str) -> str:
    regex = require("regex", "train")
    # In a text of all characters in order, each run of matches is a range.
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1))))
    runs = regex.findall(f"{character_class}+", everything, regex.IGNORECASE)
    return "".join(f"\\x{{{ord(run[0]):x}}}-\\x{{{ord(run[-1]):x}}}" for run in runs)
