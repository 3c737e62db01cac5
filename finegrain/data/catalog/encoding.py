"""Which encoding the text of a table is in."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from charset_normalizer import from_bytes

from finegrain.errors import DataError

_CHUNK = 1 << 20
_SAMPLE = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; those of UTF-32 begin like those of UTF-16, so they come first."""

_LIKELY = ["cp1252", "gb18030", "cp1251", "cp932", "big5", "cp949", "cp1250", "cp1254", "koi8_r"]
"""What tables are in that spreadsheets and shops of the last decades wrote."""

_SHOWN = 3

_MOSTLY = 0.4
"""Share of zero bytes at even or odd places by which UTF-16 without a mark is known: half of
its bytes are zero where the text is ASCII, as the column names of most tables are."""

# Their letters lie above 0xBF, so that a row is valid UTF-8 by design and not by chance.
_NEVER_UTF8_BY_CHANCE = {
    codecs.lookup(name).name
    for name in ("latin-1", "iso8859-15", "cp1250", "cp1251", "cp1252", "cp1254", "cp1257")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the text of one file is decoded.

    Attributes:
        name: For :func:`open`.
        is_guessed: Whether nobody stated it and it is not plain UTF-8.
        may_hold_utf8: Whether single rows may be UTF-8 all the same.
        advice: What to do about rows that cannot be decoded.
    """

    name: str
    is_guessed: bool = False
    may_hold_utf8: bool = False
    advice: str = ""

    def open(self, table: Path) -> IO[str]:
        """The text with its own line ends; bytes that do not fit become lone surrogates."""
        return table.open(encoding=self.name, errors="surrogateescape", newline="")

    def checked(self, cells: Sequence[str]) -> list[str]:
        """The cells of one row.

        Raises:
            DataError: One of them holds bytes that could not be decoded.
        """
        joined = "".join(cells)
        if joined.isascii():
            return list(cells)
        if self.may_hold_utf8:
            try:
                return [self._bytes(cell).decode() for cell in cells]
            except UnicodeDecodeError:
                pass  # in the fallback encoding, as most rows of this file
        if any("\udc80" <= character <= "\udcff" for character in joined):
            name = self.name.removesuffix("-sig").upper()
            raise DataError(f"holds bytes that are not {name}{self.advice}")
        return list(cells)

    def _bytes(self, cell: str) -> bytes:
        return cell.encode(self.name, "surrogateescape")


def find_encoding(
    table: Path, *, stated: str | None = None, fallback: str | None = None
) -> Encoding:
    """Find the encoding of a file.

    Args:
        table: The file.
        stated: Its encoding, which is taken as it is.
        fallback: Its encoding where it is not UTF-8 and has no byte order mark.

    Returns:
        What was stated; else what a byte order mark says, UTF-16 where every other byte is
        zero, and UTF-8. A file that is not UTF-8 is decoded by the fallback as a whole.
        Without one, rows that are not UTF-8 cannot be decoded, and the advice names the
        encoding that they look like.

    Raises:
        DataError: Python knows no such encoding, or the file cannot be opened.
    """
    for name in (stated, fallback):
        _require_known(name)
    try:
        with table.open("rb") as stream:
            start = stream.read(_SAMPLE)
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error}.") from error
    if stated is not None:
        is_utf8 = codecs.lookup(stated).name == "utf-8"
        return Encoding(name="utf-8-sig" if is_utf8 else stated)
    for mark, name in _MARKS:
        if start.startswith(mark):
            return Encoding(name=name, is_guessed=name != "utf-8-sig")
    if wide := utf16_without_mark(start):
        return Encoding(name=wide, is_guessed=True)
    wrong = _first_wrong_part(table)
    if wrong is None:
        return Encoding(name="utf-8-sig")
    if fallback is not None:
        plain = codecs.lookup(fallback).name
        return Encoding(name=fallback, may_hold_utf8=plain in _NEVER_UTF8_BY_CHANCE)
    return Encoding(name="utf-8-sig", advice=_advice(wrong))


def _require_known(name: str | None) -> None:
    if name is None:
        return
    try:
        "".encode(name)
    except (LookupError, ValueError, TypeError) as error:
        raise DataError(
            f"expected the name of an encoding such as 'cp1252', 'gbk' or 'utf-16', got {name!r}."
        ) from error


def utf16_without_mark(start: bytes) -> str | None:
    """UTF-16 of either byte order where the first bytes of a file look like it."""
    half = len(start) // 2
    if half < 2:
        return None
    if start[1::2].count(0) > _MOSTLY * half and 0 not in start[::2]:
        return "utf-16-le"
    if start[::2].count(0) > _MOSTLY * half and 0 not in start[1::2]:
        return "utf-16-be"
    return None


def _first_wrong_part(table: Path) -> bytes | None:
    """Some of the file from where it is not UTF-8, or None where all of it is."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with table.open("rb") as stream:
        while True:
            chunk = stream.read(_CHUNK)
            try:
                decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                # What follows tells more about the language than what precedes.
                return bytes(error.object[max(0, error.start - 200) : error.start + _SAMPLE])
            if not chunk:
                return None


def _advice(wrong: bytes) -> str:
    """The encodings that a text may be in, the commonest first, for a person to choose."""
    matches = from_bytes(wrong, cp_isolation=_LIKELY)
    best = matches.best()
    names = {
        name
        for match in matches
        if best is not None and match.coherence >= best.coherence / 2
        for name in match.could_be_from_charset
    }
    likely = [name for name in _LIKELY if name in names][:_SHOWN]
    looks = f"; they may be {' or '.join(likely)}" if likely else ""
    return f"{looks}. State the encoding of the file, such as --encoding {[*likely, 'cp1252'][0]}"
