"""Reader of a folder of pictures, with metadata from tables and from file names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from finegrain.data.catalog.columns import CAMERA, PID, TIME, TRACK, kept_name
from finegrain.data.catalog.image_folder import METADATA_FILES, read_image_folder
from finegrain.data.catalog.kinds import CatalogOptions, refuse_mostly_bad
from finegrain.data.catalog.moments import AmbiguousTimeError, date_order, parse_time
from finegrain.data.catalog.patterns import NamePattern
from finegrain.data.catalog.table import DEFAULT_SPLIT
from finegrain.data.catalog.values import of_one_type
from finegrain.data.catalog.webdataset import read_webdataset
from finegrain.errors import DataError, ImageError
from finegrain.preprocess import Crop
from finegrain.preprocess.folder import Folder, read_folder
from finegrain.records import Problem, ProblemKind, Sample, Scalar, Split, pid_of


def read_picture_folder(
    root: Path,
    options: CatalogOptions,
    *,
    exclude: Sequence[str] = (),
    name_pattern: str | None = None,
) -> dict[str, Split]:
    """Read every picture of a folder and of those below it, for search.

    A ``metadata.csv``, ``.jsonl`` or ``.parquet`` in any folder describes the pictures beside it.
    Pictures that it does not name are read without metadata. Shards (``*.tar``) in the root
    folder are read too. All other files are among the problems, by kind.

    Args:
        root: The folder.
        options: Options for its tables.
        exclude: Shell patterns of paths to ignore.
        name_pattern: Pattern of the pictures' names, such as ``{pid}_c{camera}s{seq}_{frame}``;
            see :class:`NamePattern`.

    Returns:
        The splits of its tables, and ``all`` with the other pictures.

    Raises:
        DataError: The pattern is invalid, or too many rows were left out.
        ImageError: The folder cannot be listed, or has no picture.
    """
    pattern = None if name_pattern is None else NamePattern(name_pattern)
    listed = read_folder(root, exclude=exclude)
    options = replace(options, roles=replace(options.roles, for_search=True))
    parts, problems = _read_tables(root, listed, options)
    named = {os.path.realpath(s.image) for split in parts for s in split.samples}
    others = [path for path in listed.pictures if os.path.realpath(path) not in named]
    names = [path.relative_to(root) for path in others]
    plain = _plain_split(others, names, pattern, options.roles.time_format)
    parts.append(replace(plain, problems=(*problems, *listed.left_out, *plain.problems)))
    if not any(split.samples for split in parts):
        seen = [problem for split in parts for problem in split.problems]
        raise ImageError(f"the folder {root} holds no picture{f'; {seen[0]}' if seen else ''}")
    splits = {str(number): split for number, split in enumerate(parts)}
    refuse_mostly_bad(splits, f"folder {root}", options.max_bad_share)
    return splits


def _read_tables(
    root: Path, listed: Folder, options: CatalogOptions
) -> tuple[list[Split], list[Problem]]:
    """The splits of a folder's tables, and a problem for each table that cannot be read."""
    parts: list[Split] = []
    problems: list[Problem] = []
    for path in listed.tables:
        try:
            if path.name in METADATA_FILES:
                folder = path.parent
                parts += read_image_folder(
                    folder, roles=options.roles, text=options.text, only=path
                ).values()
            elif path.suffix.lower() == ".tar" and path.parent == root:
                parts += read_webdataset(path, roles=options.roles).values()
            else:
                raise DataError("is a table or an archive; index it by its own name")
        except DataError as error:
            problems.append(Problem(where=str(path), why=str(error), kind=ProblemKind.TABLE))
    return parts, problems


def read_pictures(
    pictures: Sequence[Path], *, name_pattern: str | None = None, time_format: str | None = None
) -> Split:
    """Read pictures that are given one by one, for search.

    Args:
        pictures: Their paths, or addresses of crops.
        name_pattern: As of :func:`read_picture_folder`.
        time_format: How times are written in the names.

    Raises:
        DataError: The pattern is none.
        ImageError: One of them does not exist.
    """
    pattern = None if name_pattern is None else NamePattern(name_pattern)
    for path in pictures:
        crop = Crop.of(path)
        if not os.path.isfile(path if crop is None else crop.path):
            raise ImageError(f"there is no picture or folder at {path}")
    names = [Path(os.path.abspath(path)) for path in pictures]
    return _plain_split(pictures, names, pattern, time_format)


def _plain_split(
    pictures: Sequence[Path],
    names: Sequence[Path],
    pattern: NamePattern | None,
    time_format: str | None,
) -> Split:
    """Pictures without a table, with metadata from their names if there is a pattern."""
    fields: list[dict[str, str]] = []
    problems: list[Problem] = []
    for path, name in zip(pictures, names, strict=True):
        try:
            fields.append({} if pattern is None else pattern.columns_of(_stem(name)))
        except DataError as error:
            fields.append({})
            problems.append(_nameless(path, error))
    order = date_order(columns[TIME] for columns in fields if TIME in columns)
    for path, columns in zip(pictures, fields, strict=True):
        try:
            if TIME in columns:
                columns[TIME] = parse_time(columns[TIME], time_format, order=order)
        except AmbiguousTimeError as error:
            raise AmbiguousTimeError(f"{path}: {error}") from None
        except DataError as error:
            columns.clear()
            problems.append(_nameless(path, error))
    typed = of_one_type([_further(columns) for columns in fields], is_text=True)
    return Split(
        name=DEFAULT_SPLIT,
        samples=tuple(
            Sample(
                image=path,
                captions=(),
                pid=pid_of(columns.get(PID)),
                camera=columns.get(CAMERA),
                metadata={**further, **_as_they_are(columns)},
            )
            for path, columns, further in zip(pictures, fields, typed, strict=True)
        ),
        problems=tuple(problems),
    )


def _stem(name: Path) -> str:
    return name.with_suffix("").as_posix()


def _nameless(path: Path, error: DataError) -> Problem:
    why = f"{error}; kept without what its name says"
    return Problem(where=str(path), why=why, kind=ProblemKind.VALUE)


def _further(columns: Mapping[str, str]) -> dict[str, Scalar]:
    own = (PID, CAMERA, TIME, TRACK)
    return {kept_name(name): value for name, value in columns.items() if name not in own}


def _as_they_are(columns: Mapping[str, str]) -> dict[str, Scalar]:
    return {name: columns[name] for name in (TIME, TRACK) if name in columns}
