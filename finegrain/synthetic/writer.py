"""A synthetic person-search dataset, written in the layout of CUHK-PEDES."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from finegrain.errors import DataError
from finegrain.synthetic import layout, person
from finegrain.synthetic.captions import captions_of, words
from finegrain.synthetic.jpeg import is_drawn, write_jpeg
from finegrain.synthetic.layout import AttributeRecord
from finegrain.synthetic.person import Identity
from finegrain.synthetic.render import SIZE, check_size, render
from finegrain.synthetic.view import view_of

SPLITS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
_CHUNK = 8


def write_people(
    root: str | Path,
    *,
    identities: int,
    pictures_per_identity: int = 4,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    splits: Mapping[str, float] = SPLITS,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Draw a dataset of synthetic people, unless the folder already has it.

    The folder holds ``reid_raw.json`` and ``imgs/`` as CUHK-PEDES does,
    ``attributes.jsonl`` with the ground truth of every picture, and ``synthetic.json`` with
    the settings, written last. The same settings give the same bytes for any number of workers,
    also after an interrupted run, whose finished pictures are kept.

    Args:
        identities: Number of people.
        size: Height and width of a picture in pixels.
        splits: Split name -> share of the identities (all shares at most 1, adding up to
            1), or number of identities (adding up to ``identities``). Swap partners stay
            in one split, so a split may be one identity larger or smaller than requested.
        workers: Number of processes; None for one per processor, 1 for this process only. They are
            spawned, so a script that uses more than one needs the usual
            ``if __name__ == "__main__":``.
        progress: Show a bar.

    Returns:
        ``root``.

    Raises:
        DataError: An argument is out of range, or ``root`` has other files.
    """
    folder = Path(root)
    check_size(size)
    if pictures_per_identity < 1:
        raise DataError(
            f"pictures_per_identity: expected at least 1, got {pictures_per_identity!r}. "
            "Ask for one or more."
        )
    if workers is not None and workers < 1:
        raise DataError(
            f"workers: expected at least 1, got {workers!r}. Leave it out for one per processor."
        )
    settings = {
        "format": layout.FORMAT,
        "version": layout.FORMAT_VERSION,
        "identities": identities,
        "pictures_per_identity": pictures_per_identity,
        "seed": seed,
        "size": list(size),
        "splits": dict(splits),
    }
    if layout.is_complete(folder, settings):
        return folder
    people = person.identities(identities, seed=seed)
    names = assign_splits(people, splits)
    jobs = [
        _Job(folder / layout.IMAGES, identity, name, pictures_per_identity, seed, size)
        for identity, name in zip(people, names, strict=True)
    ]
    with layout.only_drawing(folder):
        if not layout.is_complete(folder, settings):
            layout.start(folder, settings)
            _write_annotations(folder, _drawn(jobs, workers or os.cpu_count() or 1, progress))
            layout.finish(folder)
    return folder


def _drawn(jobs: Sequence[_Job], workers: int, progress: bool) -> list[AttributeRecord]:
    """Draw the pictures of all jobs; records are in the order of the jobs."""
    records: list[AttributeRecord] = []
    total = sum(job.pictures for job in jobs)
    with tqdm(total=total, unit="picture", desc="drawing people", disable=not progress) as bar:
        for drawn in _run(jobs, workers):
            records += drawn
            bar.update(len(drawn))
    return records


def assign_splits(people: Sequence[Identity], splits: Mapping[str, float]) -> list[str]:
    """The split of each identity: neighbouring runs, with swap partners kept together.

    Raises:
        DataError: The shares or counts do not add up.
    """
    values = list(splits.values())
    total = len(people)
    shares = (
        bool(values)
        and all(0 <= value <= 1 for value in values)
        and (abs(sum(values) - 1.0) < 1e-6)
    )
    counts = all(value == int(value) and value >= 0 for value in values) and (sum(values) == total)
    if not (shares or counts):
        raise DataError(
            f"splits: expected shares that add up to 1 or counts that add up to {total}, "
            f"got {dict(splits)!r}. The usual shares are {dict(SPLITS)!r}."
        )
    names: list[str] = []
    reached = 0.0
    for name, value in splits.items():
        reached += value * total if shares else value
        end = round(reached)
        while len(names) < end or (names and len(names) < total and _cuts_pair(people, len(names))):
            names.append(name)
    return names


def _cuts_pair(people: Sequence[Identity], boundary: int) -> bool:
    return people[boundary].swap_pid == people[boundary - 1].pid


@dataclass(frozen=True, slots=True)
class _Job:
    """All pictures of one identity; sent to another process."""

    images: Path
    identity: Identity
    split: str
    pictures: int
    seed: int
    size: tuple[int, int]


def _draw(job: _Job) -> list[AttributeRecord]:
    # Processes draw in parallel, so additional threads of OpenCV would slow them down.
    cv2.setNumThreads(1)
    return [_draw_picture(job, picture) for picture in range(job.pictures)]


def _draw_picture(job: _Job, picture: int) -> AttributeRecord:
    identity = job.identity
    view = view_of(identity, picture, seed=job.seed)
    name = f"{view.camera.name}/{identity.pid:06d}_{picture:02d}.jpg"
    path = job.images / name
    if not is_drawn(path):
        write_jpeg(path, render(identity.person, view, size=job.size))
    captions = captions_of(identity, view, picture, seed=job.seed)
    return AttributeRecord(
        file_path=name,
        id=identity.pid,
        split=job.split,
        camera=view.camera.name,
        attributes={
            **identity.person.attributes(),
            "facing": view.facing,
            "camera": view.camera.name,
        },
        captions=tuple(caption.text for caption in captions),
        swapped_captions=tuple(caption.swapped for caption in captions),
        swap_id=identity.swap_pid,
    )


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[list[AttributeRecord]]:
    """Records of each job, in order."""
    if workers == 1 or len(jobs) <= _CHUNK:
        yield from map(_draw, jobs)
        return
    # Spawned, because a fork of a process with running threads (OpenCV, torch) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(_draw, jobs, chunksize=_CHUNK)


def _write_annotations(folder: Path, records: Sequence[AttributeRecord]) -> None:
    lines = "".join(f"{record.to_json()}\n" for record in records)
    layout.write_atomically(folder / layout.ATTRIBUTES, lines)
    raw = [
        {
            "split": record.split,
            "captions": list(record.captions),
            "file_path": record.file_path,
            "processed_tokens": [words(caption) for caption in record.captions],
            "id": record.id,
        }
        for record in records
    ]
    layout.write_atomically(folder / layout.ANNOTATIONS, json.dumps(raw))
