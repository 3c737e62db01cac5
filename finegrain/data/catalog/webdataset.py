"""Reader of WebDataset: pictures and captions inside tar files."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from finegrain.data.catalog.pictures import CatalogPictures
from finegrain.data.catalog.roles import USUAL_ROLES, Roles
from finegrain.data.catalog.row import Row
from finegrain.data.catalog.rows import peeked
from finegrain.data.catalog.table import (
    DEFAULT_SPLIT,
    common_split_name,
    read_table,
)
from finegrain.errors import DataError
from finegrain.preprocess.formats import PICTURE_SUFFIXES
from finegrain.preprocess.image import MAX_FILE_BYTES
from finegrain.records import Split

IMAGE_ENDINGS = tuple(suffix.removeprefix(".") for suffix in sorted(PICTURE_SUFFIXES))
CAPTION_ENDINGS = ("txt", "caption", "text")
CAPTION_KEYS = ("caption", "captions", "text", "title")
"""Keys of captions in the JSON beside a picture, if there is no text file."""

_MAX_TEXT_BYTES = 1 << 20
_IMAGE, _CAPTION, _SPLIT = "image", "caption", "split"
_SPLITS = ("train", "val", "test")


def shards_of(path: Path) -> tuple[Path, ...]:
    """The tar files of a folder in order, or the path itself if it is a tar file."""
    return tuple(sorted(path.glob("*.tar"))) if path.is_dir() else (path,)


def read_webdataset(path: Path, *, roles: Roles = USUAL_ROLES) -> dict[str, Split]:
    """Read uncompressed shards. Neighbouring members with the same base name are a row.

    ``000.jpg`` is the picture, ``000.txt`` its caption, and ``000.json`` its metadata, with a
    ``caption`` if there is no text file. Pictures are unpacked once into a folder beside each
    shard and named by a hash of their content; names of members are never used as paths. Shards
    named ``train-…``, ``val-…`` and ``test-…`` are splits. Files that macOS adds to archives
    (``._000.jpg``) are ignored.

    Args:
        path: A ``.tar`` file, or a folder of them.
        roles: Names of JSON keys that differ from the usual ones, such as that of the pid.

    Raises:
        DataError: There is no shard, or no row is valid.
    """
    shards = shards_of(path)
    if not shards or not all(shard.is_file() for shard in shards):
        raise DataError(f"expected a .tar or a folder of them at {path}, found none.")
    pictures = CatalogPictures(path / "shards" if path.is_dir() else path)
    table = peeked(path, (row for shard in shards for row in _rows(shard)))
    fixed = replace(roles, image=_IMAGE, captions=(_CAPTION,), pattern=None, split=_SPLIT)
    columns = replace(fixed.in_table(table), needs_caption=not roles.for_search)
    return read_table(table, columns, pictures, for_search=roles.for_search)


def _rows(shard: Path) -> Iterator[Row]:
    split = _split_of(shard)
    key, cells, why = "", dict[str, Any](), ""
    try:
        with tarfile.open(shard, "r|") as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # there may be a million
                if member.isdir() or _is_of_macos(member.name):
                    continue
                stem, ending = _stem_and_ending(member.name)
                if stem != key:
                    if key:
                        yield _row(shard, key, cells, why, split)
                    key, cells, why = stem, {}, ""
                try:
                    cells.update(_read(archive, member, ending))
                except DataError as error:
                    why = why or str(error)
    # The complete rows of a truncated shard have been read before the error. A chain of headers
    # for long names is read by recursion, and numbers in headers may be invalid.
    except (tarfile.TarError, OSError, EOFError, RecursionError, ValueError) as error:
        yield Row(shard.name, {}, f"breaks off: {error}")
    if key:
        yield _row(shard, key, cells, why, split)


def _row(shard: Path, key: str, cells: dict[str, Any], why: str, split: str) -> Row:
    where = f"{shard.name}:{key}"
    if why:
        return Row(where, {}, why)
    about = cells.pop("json", {})
    caption = cells.get(_CAPTION) or next((about[k] for k in CAPTION_KEYS if about.get(k)), None)
    metadata = {name: value for name, value in about.items() if name not in CAPTION_KEYS}
    return Row(where, {**metadata, _IMAGE: cells.get(_IMAGE), _CAPTION: caption, _SPLIT: split})


def _is_of_macos(name: str) -> bool:
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name == ".DS_Store" or path.name.startswith("._")


def _stem_and_ending(name: str) -> tuple[str, str]:
    """The base name and the ending, which begins at the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> dict[str, Any]:
    inside = PurePosixPath(member.name)
    if inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"its member {member.name!r:.80} leads out of the shard")
    if not member.isfile():
        raise DataError(f"its member {member.name!r:.80} is a link or a device, not a file")
    if member.issparse():
        raise DataError(f"its member {member.name!r:.80} is sparse, so that it may be far larger")
    # Other members, such as masks or embeddings, are ignored.
    if ending not in (*IMAGE_ENDINGS, *CAPTION_ENDINGS, "json"):
        return {}
    limit = MAX_FILE_BYTES if ending in IMAGE_ENDINGS else _MAX_TEXT_BYTES
    stream = archive.extractfile(member)
    if member.size > limit or stream is None:
        raise DataError(f"its member {member.name!r:.80} is larger than {limit >> 20} MiB")
    data = stream.read()
    if ending in IMAGE_ENDINGS:
        return {_IMAGE: data}
    try:
        if ending in CAPTION_ENDINGS:
            return {_CAPTION: data.decode("utf-8")}
        about = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its member {member.name!r:.80} cannot be read: {error}") from error
    if not isinstance(about, dict):
        raise DataError(f"its member {member.name!r:.80} is not a JSON object")
    return {"json": about}


def _split_of(shard: Path) -> str:
    match = re.match(r"[A-Za-z]+", shard.name)
    name = common_split_name(match[0]) if match else DEFAULT_SPLIT
    return name if name in _SPLITS else DEFAULT_SPLIT
