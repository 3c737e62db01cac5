"""Detects what a path for ``finegrain index`` is, from its content or a known ending."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from finegrain.data.catalog.rows import DELIMITED, TABLE_SUFFIXES
from finegrain.errors import DataError
from finegrain.preprocess.folder import first_bytes
from finegrain.preprocess.formats import ending_of
from finegrain.preprocess.frames import VIDEO_SUFFIXES

InputKind = Literal["folder", "picture", "video", "catalog"]

_EBML = b"\x1aE\xdf\xa3"  # Matroska and WebM
_RECORDINGS = {
    b"DHAV": "a recording by a Dahua camera (.dav)",
    b"IMKH": "a recording by a Hikvision camera",
    b"\0\0\1\xba": "an MPEG program stream",
}
_BINARY_TABLES = (
    b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b"
)  # fmt: skip
_TEXT = re.compile(rb"[\t\r\n -\x7e\x80-\xff]+")


def input_kind(path: Path) -> InputKind:
    """The kind of input of a path.

    Raises:
        DataError: It cannot be read, or is a recording in a format that is not supported.
    """
    if path.is_dir():
        return "folder"
    suffix = path.suffix.lower()
    if not path.is_file() or suffix in VIDEO_SUFFIXES:
        # the address of a crop, or a missing file that the reader reports
        return "video" if suffix in VIDEO_SUFFIXES else "picture"
    try:
        start = first_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if ending_of(start) is not None and suffix not in DELIMITED:
        return "picture"
    if suffix in TABLE_SUFFIXES or suffix == ".tar":
        return "catalog"
    if start.startswith(_EBML) or start[4:8] == b"ftyp" or start[8:12] == b"AVI ":
        return "video"
    for magic, what in _RECORDINGS.items():
        if start.startswith(magic):
            raise DataError(
                f"{path} is {what}, which is not supported. Convert it without loss: "
                f"ffmpeg -i {path.name} -c copy {path.stem}.mp4"
            )
    is_table = start.startswith(_BINARY_TABLES) or _TEXT.fullmatch(start) is not None
    return "catalog" if is_table else "picture"
