"""The words and tokens that a text tower was trained on.

Training from random weights writes them into the run folder as ``vocabulary.json``, and an export
puts the file into the plan. A pretrained text tower has no such file, as its words are not known.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from finegrain.bounded.strict_json import parse_strict
from finegrain.errors import PlanError
from finegrain.preprocess.text import Tokenizer

VOCABULARY = "vocabulary.json"
"""Name of the file in a run folder and in a plan."""

MAX_BYTES = 4 << 20
MAX_WORDS = 50_000
"""Largest number of words in the file; rarer ones are left out."""

MAX_TOKENS = 300_000

_BATCH = 1024
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Letters of scripts without blanks between words, such as Chinese, Japanese and Thai."""

WORD = re.compile(
    rf"[{_NO_SPACES}]|(?:(?![{_NO_SPACES}])[^\W\d_])+(?:[-'’](?:(?![{_NO_SPACES}])[^\W\d_])+)*"
)
"""A word, with the hyphens inside it. In scripts without blanks each letter is a word."""


def words_of(text: str) -> list[str]:
    """Words of a text, in lower case.

    >>> words_of("A T-shirt (blue), 100% cotton.")
    ['a', 't-shirt', 'blue', 'cotton']
    """
    return WORD.findall(unicodedata.normalize("NFC", text).lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What the captions of a training contained.

    Attributes:
        words: Number of captions with each word, the most frequent first.
        tokens: Ids of the tokens, ascending, with those that the tokenizer adds.
    """

    words: Mapping[str, int]
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, captions: Iterable[str], tokenizer: Tokenizer) -> Vocabulary:
        """Count the words of training captions.

        Words beyond the context length are not counted, as the model does not read them.
        """
        counts: Counter[str] = Counter()
        tokens = {tokenizer.end_id}
        remaining = iter(captions)
        while batch := list(islice(remaining, _BATCH)):
            encoded = tokenizer.encode(batch)
            tokens.update(encoded.ids.ravel().tolist())
            for caption, end in zip(batch, encoded.eot, strict=True):
                words = words_of(caption)
                if end == tokenizer.context_length - 1:
                    cut = words_of(tokenizer.beyond_context(caption))
                    words = words[: len(words) - len(cut)]
                counts.update(dict.fromkeys(words, 1))
        return cls(words=dict(counts.most_common(MAX_WORDS)), tokens=tuple(sorted(tokens)))

    def to_json(self) -> bytes:
        return json.dumps({"words": self.words, "tokens": self.tokens}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Vocabulary:
        """Read the file that :meth:`to_json` makes.

        Raises:
            PlanError: It is too large, or is not such a file.
        """
        if len(data) > MAX_BYTES:
            raise PlanError(
                f"expected a {VOCABULARY} of at most {MAX_BYTES} bytes, got {len(data)}. "
                "Export the plan again."
            )
        try:
            stated = parse_strict(data)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{VOCABULARY} is not valid JSON ({error}). {_AGAIN}") from error
        if not isinstance(stated, dict) or stated.keys() != {"words", "tokens"}:
            raise PlanError(f"expected words and tokens in {VOCABULARY}, got others. {_AGAIN}")
        words, tokens = stated["words"], stated["tokens"]
        if (
            not isinstance(words, dict)
            or len(words) > MAX_WORDS
            or not all(type(count) is int and count > 0 for count in words.values())
        ):
            raise PlanError(
                f"expected at most {MAX_WORDS} words with counts in {VOCABULARY}. {_AGAIN}"
            )
        if (
            not isinstance(tokens, list)
            or len(tokens) > MAX_TOKENS
            or not all(type(token) is int and token >= 0 for token in tokens)
        ):
            raise PlanError(f"expected at most {MAX_TOKENS} token ids in {VOCABULARY}. {_AGAIN}")
        return cls(words=words, tokens=tuple(tokens))


_AGAIN = "Copy the file again, or export the plan again."
