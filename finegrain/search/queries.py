"""Checks queries, and tells users what in a text is not searched as they may expect."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image

from finegrain.errors import QueryError
from finegrain.gallery.pictures import SUFFIXES
from finegrain.preprocess import ImageSource, Tokenizer

MAX_QUERY_CHARACTERS = 2_000

Query = str | ImageSource

_QUOTES = ("''", '""', "``", "“”", "‘’")


def check_query(query: object, *, place: str = "") -> None:
    """Check that a query is a picture, or a text that is valid and not empty or too long.

    Args:
        query: The query.
        place: Where it is among several, for the message.

    Raises:
        QueryError: The query is invalid.
    """
    fault = None
    if isinstance(query, str):
        fault = _fault_of_text(query)
    elif not isinstance(query, Path | bytes | np.ndarray | Image.Image):
        fault = f"expected a text or a picture to search for, got {type(query).__name__}"
    if fault is not None:
        raise QueryError(f"{place}: {fault}" if place else fault)


def _fault_of_text(query: str) -> str | None:
    if all(c.isspace() or unicodedata.category(c) == "Cf" for c in query):
        return "the query is empty; say what to look for, as in 'woman in red coat'"
    if len(query) > MAX_QUERY_CHARACTERS:
        return (
            f"the query has {len(query)} characters, more than {MAX_QUERY_CHARACTERS}; "
            "a caption of a sentence or two searches best"
        )
    control = [c for c in query if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r"]
    return f"the query holds the control character {control[0]!r}; remove it" if control else None


def text_notes(tokenizer: Tokenizer, text: str) -> list[str]:
    """Notes on a text query: words that the model does not read, or a text that is a path."""
    note = path_note(text)
    notes = [] if note is None else [note]
    if unread := tokenizer.beyond_context(text):
        num_words = len(unread.split())
        words = "word was" if num_words == 1 else f"{num_words} words were"
        notes.append(
            f"the model reads {tokenizer.context_length} tokens of a text; "
            f"the last {words} not read: {_shortened(unread)!r}"
        )
    return notes


def _shortened(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:75]} … {text[-75:]}"


def typed_file(text: str) -> Path | None:
    """The existing file that a text names, as people type or paste paths; else None.

    The path may be in quotes, start with ``~``, or be a ``file://`` address.
    """
    path = _path(text)
    return path if path is not None and _looks_like_a_picture(path) and _is_file(path) else None


def path_note(text: str) -> str | None:
    """A note on a text that is the path of a picture or a folder; None for other texts."""
    path = _path(text)
    if path is None:
        is_address = "://" in text and len(text.split()) == 1
        if is_address and Path(text.partition("?")[0]).suffix.lower() in SUFFIXES:
            return f"{text!r:.80} looks like an address; download the picture, and search by it"
        return None
    if _looks_like_a_picture(path):
        missing = "" if _is_file(path) else ", which does not exist"
        advice = "search by the picture with pathlib.Path(...), or --image"
        return f"{text!r:.80} looks like the path of a picture{missing}; {advice}"
    if any(mark in text for mark in ("/", os.sep, "~")) and os.path.isdir(path):
        return f"{text!r:.80} is a folder; search by one of its pictures"
    return None


def _path(text: str) -> Path | None:
    """The path that a text may be, without quotes, ``~`` and ``file://``; None if it is none."""
    text = text.strip()
    if len(text) >= 2 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1]
    if text.casefold().startswith("file:"):
        try:
            address = urlsplit(text)
        except ValueError:
            return None
        text = url2pathname(address.path) if address.netloc in ("", "localhost") else ""
    if not text or "\0" in text or "://" in text:
        return None
    return Path(os.path.expanduser(text))


def _looks_like_a_picture(path: Path) -> bool:
    """Whether a path is one word, has a folder or exists, and ends like a picture's name."""
    is_name = len(str(path).split()) == 1 or len(path.parts) > 1 or _is_file(path)
    return is_name and path.suffix.lower() in SUFFIXES


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # unlike Path.is_file(), False for a name that is too long
