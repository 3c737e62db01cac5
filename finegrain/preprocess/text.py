"""Converts captions to token ids. Training, export and search use the same code.

A tokenizer is a JSON file of the ``tokenizers`` library. Each plan contains its tokenizer, so
serving needs no other vocabulary. Captions are cleaned first, because this format cannot express
the cleaning; see :class:`~finegrain.preprocess.Cleaning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import tokenizers

from finegrain.errors import PlanError, QueryError
from finegrain.preprocess.cleaning import CLIP_CLEANING, Cleaning

NO_PROMPT = "{}"
"""The template that leaves captions as they are."""

MAX_ENTRIES = 2_000_000
"""Largest number of commas in the JSON of a tokenizer, hence of its pieces and merges. The 256,000
pieces and 580,000 merges of SigLIP 2 have 1.4 million."""

MAX_JSON_BYTES = 128 << 20

_MIN_WIDTH = 2
"""Minimum number of columns; exported graphs are not made for one."""


def checked_prompt(prompt: str) -> str:
    """The template, if it has a place for the caption.

    Raises:
        QueryError: It does not have one ``{}``.
    """
    if prompt.count("{}") != 1:
        raise QueryError(
            f"expected a prompt with one {{}} for the text, got {prompt!r}; for example "
            "'a photo of {}'"
        )
    return prompt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenBatch:
    """Token ids of ``N`` captions.

    Attributes:
        ids: int32 ``[N, L]``: the start token if there is one, the caption, the end-of-text
            token, then zeros.
        eot: int32 ``[N]``: position of the end-of-text token. Text towers read this position.
            They do not search for the largest id, because 49406 and 49407 are equal in half
            precision.
    """

    ids: npt.NDArray[np.int32]
    eot: npt.NDArray[np.int32]


def parse_tokenizer(text: str) -> tokenizers.Tokenizer:
    """Parse the JSON of the ``tokenizers`` library, of bounded size.

    Raises:
        ValueError: It is larger than :data:`MAX_JSON_BYTES` or :data:`MAX_ENTRIES`. The library
            raises ``Exception`` for other faults.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"it has {len(text)} characters; expected at most {MAX_JSON_BYTES}")
    num_entries = text.count(",")
    if num_entries > MAX_ENTRIES:
        raise ValueError(f"it has {num_entries} entries; expected at most {MAX_ENTRIES}")
    return tokenizers.Tokenizer.from_str(text)


class Tokenizer:
    """Converts captions to token ids for a text tower.

    Only this class adds start and end tokens. The text ``<end_of_text>`` in a caption is ordinary
    text, so a caption cannot change the position that the tower reads.

    Attributes:
        context_length: Maximum number of tokens, including the start and end tokens.
        vocabulary_size: Number of different ids.
        start_id: Id of the start token; None if captions have none, as in SigLIP.
        end_id: Id of the end-of-text token.
        cleaning: Cleaning of captions.
        prompt: Template whose ``{}`` is replaced by each caption before cleaning.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        context_length: int,
        cleaning: Cleaning = CLIP_CLEANING,
        prompt: str = NO_PROMPT,
    ) -> None:
        """Wrap a loaded tokenizer.

        Raises:
            QueryError: ``prompt`` does not have one ``{}``.
            PlanError: ``context_length`` is less than 3, or the tokenizer does not add one end
                token, and at most one start token, to a text.
        """
        if context_length < 3:
            raise PlanError(
                f"expected a context length of 3 or more, got {context_length}: "
                "start, end and at least one token of text must fit."
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # special tokens in a caption are ordinary text
        around = tokenizer.encode("").ids
        ends = bool(around) and tokenizer.encode("a").ids[-1] == around[-1]
        if not ends or len(around) > 2:
            raise PlanError(
                "expected a tokenizer that encodes an empty text as its start and end token, or as "
                f"its end token, got ids {around[:8]}. Give its file a template post-processor."
            )
        self._tokenizer = tokenizer
        self.context_length = context_length
        self.cleaning = cleaning
        self.prompt = checked_prompt(prompt)
        self.vocabulary_size: int = tokenizer.get_vocab_size()
        self.end_id: int = around[-1]
        self.start_id: int | None = around[0] if len(around) == 2 else None
        self._start: list[int] = around[:-1]
        self._remembered: dict[str, list[int]] = {}
        self._capacity = 0

    @classmethod
    def from_json(
        cls,
        data: bytes | str,
        *,
        context_length: int,
        cleaning: Cleaning = CLIP_CLEANING,
        prompt: str = NO_PROMPT,
    ) -> Tokenizer:
        """Create a tokenizer from the content of its JSON file.

        Raises:
            PlanError: ``data`` is not a file of the ``tokenizers`` library.
        """
        try:
            text = data if isinstance(data, str) else data.decode("utf-8")
            tokenizer = parse_tokenizer(text)
        except Exception as error:  # the library raises nothing more specific
            raise PlanError(
                f"expected the JSON of a tokenizer, got {data!r:.60} ({error}). "
                "Export the plan again."
            ) from error
        return cls(tokenizer, context_length=context_length, cleaning=cleaning, prompt=prompt)

    def to_json(self) -> str:
        """Return the content of the JSON file that :meth:`from_json` reads."""
        return str(self._tokenizer.to_str())

    def encode(self, captions: Sequence[str], *, pad_to: int | None = None) -> TokenBatch:
        """Encode captions; captions that are too long are cut.

        Args:
            captions: ``N`` texts of any length and script; they may be empty.
            pad_to: Width ``L`` of the ids. By default the longest caption of the batch, which is
                exact and fastest for causal towers.

        Returns:
            Ids ``[N, L]`` and end-of-text positions ``[N]``. A cut caption ends with the
            end-of-text token in the last column.

        Raises:
            QueryError: ``captions`` is a single string, an item is not a string, or ``pad_to``
                does not fit the context length.
        """
        if isinstance(captions, str):
            raise QueryError(
                f"expected a list of captions, got one text {captions!r:.60}. Put it in a list."
            )
        width = self.context_length if pad_to is None else pad_to
        if not 2 < width <= self.context_length:
            raise QueryError(
                f"expected pad_to between 3 and the context length {self.context_length}, "
                f"got {pad_to}."
            )
        rows = [self._with_ends(self._body(caption), width) for caption in captions]
        eot = np.array([len(row) - 1 for row in rows], dtype=np.int32)
        if pad_to is None:
            width = max(int(eot.max(initial=1)) + 1, _MIN_WIDTH)
        ids = np.zeros((len(rows), width), dtype=np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return TokenBatch(ids=ids, eot=eot)

    def remembering(self, captions: int) -> Tokenizer:
        """A copy that keeps the ids of up to this number of captions.

        Training reads the same captions in every epoch. Cleaning and encoding them again takes
        longer than everything else that a batch of small pictures needs.
        """
        remembering = copy(self)
        remembering._remembered, remembering._capacity = {}, captions
        return remembering

    def beyond_context(self, caption: str) -> str:
        """The words of a caption that :meth:`encode` cuts off; empty if there are none.

        A word that is partly cut counts as cut.
        """
        # Without max_words, words beyond its limit are reported as well.
        prompted = self.prompt.replace("{}", caption)
        cleaned = replace(self.cleaning, max_words=None)(prompted)
        offsets = self._encoded(cleaned).offsets
        capacity = self.context_length - len(self._start) - 1
        if len(offsets) <= capacity:
            return ""
        # A token may begin with the blank before its word.
        first = offsets[capacity][0]
        start = first if cleaned[first : first + 1] == " " else cleaned.rfind(" ", 0, first) + 1
        return cleaned[start:].strip()

    def _with_ends(self, body: list[int], width: int) -> list[int]:
        return [*self._start, *body[: width - len(self._start) - 1], self.end_id]

    def _body(self, caption: str) -> list[int]:
        if not isinstance(caption, str):
            raise QueryError(f"expected a caption as text, got {caption!r:.60}.")
        known = self._remembered.get(caption)
        if known is not None:
            return known
        cleaned = self.cleaning(self.prompt.replace("{}", caption))
        ids: list[int] = self._encoded(cleaned).ids
        if len(self._remembered) < self._capacity:
            self._remembered[caption] = ids
        return ids

    def _encoded(self, cleaned: str) -> tokenizers.Encoding:
        try:
            return self._tokenizer.encode(cleaned, add_special_tokens=False)
        except BaseException as error:
            # The library's panics derive from BaseException and have no public type.
            if type(error).__name__ != "PanicException":
                raise
            raise QueryError(
                f"the tokenizer of the plan gave up on {cleaned!r:.60}: {error}. A pattern in its "
                "tokenizer.json takes too long; use another plan."
            ) from error
