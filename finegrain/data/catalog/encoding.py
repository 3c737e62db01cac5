"""Detection of the encoding of a text table."""

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
"""Byte order marks. UTF-32 comes first, because its marks begin like those of UTF-16."""

_LIKELY = ["cp1252", "gb18030", "cp1251", "cp932", "big5", "cp949", "cp1250", "cp1254", "koi8_r"]
"""Common encodings of tables from spreadsheets and shops."""

_SHOWN = 3

_MOSTLY = 0.4
"""Share of zero bytes at even or odd positions that identifies UTF-16 without a mark. In ASCII
text, such as most column names, half of its bytes are zero."""

# Their letters are above 0xBF, so text in these encodings is never valid UTF-8 by chance.
_NEVER_UTF8_BY_CHANCE = {
    codecs.lookup(name).name
    for name in ("latin-1", "iso8859-15", "cp1250", "cp1251", "cp1252", "cp1254", "cp1257")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the text of one file is decoded.

    Attributes:
        name: Name of the encoding for :func:`open`.
        is_guessed: Whether the encoding was detected and is not UTF-8.
        may_hold_utf8: Whether single rows may be UTF-8 nevertheless.
        advice: What to do about rows that cannot be decoded, for messages.
    """

    name: str
    is_guessed: bool = False
    may_hold_utf8: bool = False
    advice: str = ""

    def open(self, table: Path) -> IO[str]:
        """Open the text with unchanged line ends. Invalid bytes become lone surrogates."""
        return table.open(encoding=self.name, errors="surrogateescape", newline="")

    def checked(self, cells: Sequence[str]) -> list[str]:
        """The cells of one row.

        Raises:
            DataError: A cell has bytes that cannot be decoded.
        """
        joined = "".join(cells)
        if joined.isascii():
            return list(cells)
        if self.may_hold_utf8:
            try:
                return [self._bytes(cell).decode() for cell in cells]
            except UnicodeDecodeError:
                pass  # the cell is in the fallback encoding, as most rows are
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
        stated: The encoding, if it is known.
        fallback: The encoding of a file that is not UTF-8 and has no byte order mark.

    Returns:
        The stated encoding. Otherwise the one of the byte order mark; UTF-16 if every other byte
        is zero; or UTF-8. A file that is not UTF-8 is decoded with the fallback as a whole.
        Without a fallback, rows that are not UTF-8 cannot be decoded, and the advice names the
        most likely encodings.

    Raises:
        DataError: Python does not have the encoding, or the file cannot be opened.
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
    """The byte order of UTF-16 without a mark, or None if the first bytes are not UTF-16."""
    half = len(start) // 2
    if half < 2:
        return None
    if start[1::2].count(0) > _MOSTLY * half and 0 not in start[::2]:
        return "utf-16-le"
    if start[::2].count(0) > _MOSTLY * half and 0 not in start[1::2]:
        return "utf-16-be"
    return None


def _first_wrong_part(table: Path) -> bytes | None:
    """A part of the file around the first bytes that are not UTF-8, or None if all are UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with table.open("rb") as stream:
        while True:
            chunk = stream.read(_CHUNK)
            try:
                decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                # The text after the error shows more of the language than the text before it.
                return bytes(error.object[max(0, error.start - 200) : error.start + _SAMPLE])
            if not chunk:
                return None


def _advice(wrong: bytes) -> str:
    """Advice that names possible encodings of a text, the most common first."""
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
    first = [*likely, "cp1252"][0]
    return (
        f"{looks}. State the encoding of the file, such as --encoding {first}, or in a training "
        f"--set data.encoding={first}"
    )
