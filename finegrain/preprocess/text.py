"""From captions to token ids: the same code in training, export and search.

A tokenizer is a JSON file of the ``tokenizers`` library, so a plan carries its own and
the serving wing needs no vocabulary of its own. Captions are cleaned before, since that
format cannot express it; see :class:`~finegrain.preprocess.Cleaning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import tokenizers

from finegrain.errors import PlanError, QueryError
from finegrain.preprocess.cleaning import CLIP_CLEANING, Cleaning

_START_AND_END = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenBatch:
    """Token ids of N captions.

    Attributes:
        ids: ``int32 [N, L]``: start, the caption, end-of-text, then zeros.
        eot: ``int32 [N]``: position of end-of-text. Text towers read this position and
            never search for the largest id, since 49406 and 49407 are one number in
            half precision.
    """

    ids: npt.NDArray[np.int32]
    eot: npt.NDArray[np.int32]


class Tokenizer:
    """Turns captions into ids for a text tower.

    Start and end tokens are added here and only here: a caption that spells
    ``<end_of_text>`` is ordinary text, so nobody can end a caption, or move the position
    that the tower reads, from inside the text.

    Attributes:
        context_length: Most tokens that a caption may have, start and end included.
        vocabulary_size: Number of different ids.
        start_id: Id before every caption.
        end_id: Id of end-of-text.
        cleaning: What is done to a caption first.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        context_length: int,
        cleaning: Cleaning = CLIP_CLEANING,
    ) -> None:
        """Wrap a loaded tokenizer.

        Raises:
            PlanError: ``context_length`` leaves no room for a word, or the tokenizer does
                not put exactly one start and one end token around a text.
        """
        if context_length <= _START_AND_END:
            raise PlanError(
                f"expected a context length of 3 or more, got {context_length}: "
                "start, end and at least one token of text must fit."
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # those spelled in a caption are text
        around = tokenizer.encode("").ids
        if len(around) != _START_AND_END:
            raise PlanError(
                "expected a tokenizer that encodes an empty text as its start and end "
                f"token, got ids {around[:8]}. Give its file a template post-processor."
            )
        self._tokenizer = tokenizer
        self.context_length = context_length
        self.cleaning = cleaning
        self.vocabulary_size: int = tokenizer.get_vocab_size()
        self.start_id, self.end_id = around

    @classmethod
    def from_json(
        cls, data: bytes | str, *, context_length: int, cleaning: Cleaning = CLIP_CLEANING
    ) -> Tokenizer:
        """Read a tokenizer file.

        Raises:
            PlanError: ``data`` is not a file of the ``tokenizers`` library.
        """
        try:
            text = data if isinstance(data, str) else data.decode("utf-8")
            tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing more specific
            raise PlanError(
                f"expected the JSON of a tokenizer, got {data!r:.60} ({error}). "
                "Export the plan again."
            ) from error
        return cls(tokenizer, context_length=context_length, cleaning=cleaning)

    def to_json(self) -> str:
        """Return the file that :meth:`from_json` reads."""
        return str(self._tokenizer.to_str())

    def encode(self, captions: Sequence[str], *, pad_to: int | None = None) -> TokenBatch:
        """Encode captions, cutting those that are too long.

        Args:
            captions: N texts of any length and script; empty ones are allowed.
            pad_to: Width L of the ids. Left out, the longest caption of the batch decides,
                which is exact and fastest for causal towers.

        Returns:
            Ids ``[N, L]`` and end-of-text positions ``[N]``. A cut caption still ends with
            end-of-text, in the last column.

        Raises:
            QueryError: ``captions`` is one bare text, holds something else than text, or
                ``pad_to`` does not fit the context.
        """
        if isinstance(captions, str):
            raise QueryError(
                f"expected a list of captions, got one text {captions!r:.60}. Put it in a list."
            )
        width = self.context_length if pad_to is None else pad_to
        if not _START_AND_END < width <= self.context_length:
            raise QueryError(
                f"expected pad_to between 3 and the context length {self.context_length}, "
                f"got {pad_to}."
            )
        bodies = [self._body(caption)[: width - _START_AND_END] for caption in captions]
        eot = np.array([len(body) + 1 for body in bodies], dtype=np.int32)
        if pad_to is None:
            width = int(eot.max(initial=1)) + 1
        ids = np.zeros((len(bodies), width), dtype=np.int32)
        ids[:, 0] = self.start_id
        for row, body in zip(ids, bodies, strict=True):
            row[1 : 1 + len(body)] = body
            row[1 + len(body)] = self.end_id
        return TokenBatch(ids=ids, eot=eot)

    def beyond_context(self, caption: str) -> str:
        """The words of a caption that :meth:`encode` cuts off; empty where it reads all.

        A word that is read in part counts as cut.
        """
        # Words beyond the cleaning's own limit are cut too: it allows more than the context does.
        cleaned = replace(self.cleaning, max_words=None)(caption)
        offsets = self._tokenizer.encode(cleaned, add_special_tokens=False).offsets
        room = self.context_length - _START_AND_END
        if len(offsets) <= room:
            return ""
        # A token may begin with the blank before its word.
        first = offsets[room][0]
        start = first if cleaned[first : first + 1] == " " else cleaned.rfind(" ", 0, first) + 1
        return cleaned[start:].strip()

    def _body(self, caption: str) -> list[int]:
        if not isinstance(caption, str):
            raise QueryError(f"expected a caption as text, got {caption!r:.60}.")
        cleaned = self.cleaning(caption)
        ids: list[int] = self._tokenizer.encode(cleaned, add_special_tokens=False).ids
        return ids
