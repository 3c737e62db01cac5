"""Files of a synthetic dataset, and their typed reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from finegrain.errors import DataError

FORMAT = "finegrain-synthetic-people"
FORMAT_VERSION = 1
IMAGES = "imgs"
ANNOTATIONS = "reid_raw.json"
ATTRIBUTES = "attributes.jsonl"
SETTINGS = "synthetic.json"
STARTED = "synthetic.json.started"

Attributes = dict[str, str | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeRecord:
    """One line of ``attributes.jsonl``: a picture with its ground truth.

    Attributes:
        file_path: Relative to ``imgs/``.
        id: The identity's number, from 1.
        swapped_captions: Each caption with two colours exchanged, or None if
            there is no such thing.
        swap_id: The identity with the exchanged colours; None outside swap pairs.
    """

    file_path: str
    id: int
    split: str
    camera: str
    attributes: Attributes
    captions: tuple[str, ...]
    swapped_captions: tuple[str | None, ...]
    swap_id: int | None

    def to_json(self) -> str:
        """One line of JSON, without its newline."""
        return json.dumps(asdict(self), separators=(",", ":"))


_TYPES: dict[str, tuple[type, ...]] = {
    "file_path": (str,),
    "id": (int,),
    "split": (str,),
    "camera": (str,),
    "attributes": (dict,),
    "captions": (list,),
    "swapped_captions": (list,),
    "swap_id": (int, type(None)),
}


def read_attributes(root: str | Path) -> tuple[AttributeRecord, ...]:
    """The ground truth of every picture of a synthetic dataset, in the order of its pictures.

    Raises:
        DataError: The file is missing, or a line is not as `write_people` writes it.
    """
    path = Path(root) / ATTRIBUTES
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: expected a readable UTF-8 text file, got {error}. "
            "Give the folder that write_people wrote, or write it again."
        ) from error
    return tuple(
        _parse(line, f"{path}:{number}")
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    )


def _parse(line: str, where: str) -> AttributeRecord:
    advice = "Write the dataset again with write_people."
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise DataError(
            f"{where}: expected a JSON object, got {line[:60]!r} ({error}). {advice}"
        ) from error
    if not isinstance(raw, dict):
        raise DataError(f"{where}: expected a JSON object, got {line[:60]!r}. {advice}")
    missing = sorted(_TYPES.keys() - raw.keys())
    if missing:
        raise DataError(f"{where}: expected the keys {sorted(_TYPES)}, missing {missing}. {advice}")
    for key, types in _TYPES.items():
        if not isinstance(raw[key], types) or isinstance(raw[key], bool):
            names = " or ".join(kind.__name__ for kind in types)
            raise DataError(
                f"{where}: expected {key!r} to be {names}, got {repr(raw[key])[:60]}. {advice}"
            )
    return AttributeRecord(
        file_path=raw["file_path"],
        id=raw["id"],
        split=raw["split"],
        camera=raw["camera"],
        attributes=raw["attributes"],
        captions=tuple(raw["captions"]),
        swapped_captions=tuple(raw["swapped_captions"]),
        swap_id=raw["swap_id"],
    )


def is_complete(folder: Path, settings: Mapping[str, object]) -> bool:
    """Whether a folder has the complete dataset of these settings; False if it is empty.

    Also False if a run with the same settings was interrupted.

    Raises:
        DataError: The folder has other content.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    path = folder / SETTINGS
    # Files of an interrupted run are a part of the files of these settings.
    started = not path.is_file() and (folder / STARTED).is_file()
    path = folder / STARTED if started else path
    advice = "Give another folder, or delete this one."
    if not folder.is_dir() or not path.is_file():
        raise DataError(
            f"{folder}: expected an empty folder or a synthetic dataset, got neither. {advice}"
        )
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, got {error}. {advice}") from error
    if stored == dict(settings):
        return not started
    raise DataError(
        f"{folder}: expected a synthetic dataset with {dict(settings)!r}, "
        f"got one with {stored!r}. {advice}"
    )


def only_drawing(folder: Path) -> FileLock:
    """A lock on a folder, so that only one process draws into it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def start(folder: Path, settings: Mapping[str, object]) -> None:
    """Write the settings of a run to the folder before it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / STARTED, json.dumps(settings, indent=2) + "\n")


def finish(folder: Path) -> None:
    """Mark the folder as complete."""
    (folder / STARTED).replace(folder / SETTINGS)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
