"""Recognises the path of a picture in the text of a query."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from finegrain.gallery.pictures import SUFFIXES

_QUOTES = ("''", '""', "``", "“”", "‘’")


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
