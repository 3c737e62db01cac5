"""Reader of CUHK-PEDES (Li et al., 2017) and of datasets kept in its format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from finegrain.data.pictures import PictureFolder
from finegrain.errors import DataError
from finegrain.records import Problem, Sample, Split

ANNOTATIONS = ("reid_raw.json", "caption_all.json")
"""Names of the annotation file, in the order they are looked for."""

SPLITS = ("train", "val", "test")

_MAX_BYTES = 1 << 30
_T = TypeVar("_T")


def read_cuhk_pedes(root: Path) -> dict[str, Split]:
    """Read all splits of a dataset in CUHK-PEDES' format.

    The folder holds ``reid_raw.json``, a list of ``{split, captions, file_path, id}``, and
    the pictures under ``imgs/`` (or beside it). Copies in circulation differ:
    ``caption_all.json``, ``img_path`` for ``file_path``, ids with gaps or from 0, and
    missing folders are all taken. Ids are kept as they are; whoever trains a classifier
    numbers them. The camera is the first folder of the path, such as ``cam_a``.

    Args:
        root: Folder of the dataset.

    Returns:
        The splits by name, those that are there, in the order train, val, test. Records
        whose picture or caption is missing are among the split's problems.

    Raises:
        DataError: no annotation file is there, it does not follow the format, or none of
            its pictures exists.
    """
    file = _annotation_file(root)
    folder = PictureFolder(root / "imgs", root)
    samples: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    problems: dict[str, list[Problem]] = {name: [] for name in SPLITS}
    for number, record in enumerate(_read_records(file), start=1):
        where = f"{file.name} record {number}"
        split, sample = _read_record(record, where, folder)
        if isinstance(sample, Sample):
            samples[split].append(sample)
        else:
            problems[split].append(sample)
    if not any(samples.values()):
        first = next((found[0] for found in problems.values() if found), "it holds no records")
        raise DataError(
            f"expected pictures for the records of {file}, got none of them; {first}. "
            "Unpack the pictures there."
        )
    return {
        name: Split(name=name, samples=tuple(samples[name]), problems=tuple(problems[name]))
        for name in SPLITS
        if samples[name] or problems[name]
    }


def _annotation_file(root: Path) -> Path:
    for name in ANNOTATIONS:
        if (root / name).is_file():
            return root / name
    raise DataError(
        f"expected {' or '.join(ANNOTATIONS)} in {root}, found neither. "
        "Point at the folder that holds the annotations and imgs/."
    )


def _read_records(file: Path) -> list[Any]:
    if file.stat().st_size > _MAX_BYTES:
        raise DataError(f"expected {file} to be smaller than 1 GB. Is it the right file?")
    try:
        records = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected JSON in {file}, could not read it: {error}.") from error
    if not isinstance(records, list):
        raise DataError(f"expected a list of records in {file}, got {type(records).__name__}.")
    return records


def _read_record(record: Any, where: str, folder: PictureFolder) -> tuple[str, Sample | Problem]:
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, got {type(record).__name__}.")
    split = _field(record, "split", str, where)
    if split not in SPLITS:
        raise DataError(f"{where}: expected split to be train, val or test, got {split!r}.")
    path = _field(record, "file_path" if "file_path" in record else "img_path", str, where)
    pid = _field(record, "id", int, where)
    captions = []
    for caption in _field(record, "captions", list, where):
        if not isinstance(caption, str):
            raise DataError(f"{where}: expected captions as text, got {caption!r:.60}.")
        if caption.strip():
            captions.append(caption)
    if not captions:
        return split, Problem(where=where, why="has no caption")
    try:
        image = folder.find(path)
    except DataError as error:
        return split, Problem(where=where, why=str(error))
    first, *rest = Path(path).parts
    camera = first if rest else None
    return split, Sample(image=image, captions=tuple(captions), pid=pid, camera=camera)


def _field(record: dict[str, Any], name: str, kind: type[_T], where: str) -> _T:
    if name not in record:
        raise DataError(
            f"{where}: expected a field {name!r}, found {', '.join(map(repr, record))}."
        )
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: expected {name} as {kind.__name__}, got {value!r:.60}.")
    return value
