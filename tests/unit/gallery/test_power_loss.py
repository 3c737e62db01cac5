"""A loss of power at any moment, with the writes that were not flushed lost, kept or torn.

The writes of the file of vectors are recorded, and so is the database at each of them. SQLite
flushes what it commits. Each state that a disk may then hold is opened.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from finegrain.gallery import Gallery
from finegrain.gallery.sqlite import vector_file
from finegrain.gallery.sqlite.files import next_vectors_of, vectors_of
from finegrain.gallery.sqlite.vector_file import VectorFile
from finegrain.index import codes, exact

DIM, BLOCK = 8, 16
SECTOR = 64
"""A write is torn at multiples of this; smaller than on a disk, since the vectors are too."""

Content = dict[int, tuple[float, ...]]
"""Vectors by id."""

Names = dict[str, int]
"""Numbers of files (inodes) by their names."""


@dataclass
class Change:
    """A write at a position, or a new length."""

    number: int
    at: int
    data: bytes | None

    def apply(self, content: bytearray, random: np.random.Generator) -> None:
        kept = random.choice(["all", "none", "torn"])
        if kept == "none":
            return
        if self.data is None:
            content[self.at :] = bytes(max(0, self.at - len(content)))
            return
        content.extend(bytes(max(0, self.at + len(self.data) - len(content))))
        for start in range(0, len(self.data), SECTOR):
            part = self.data[start : start + SECTOR]
            if kept == "all" or random.random() < 0.5:
                content[self.at + start : self.at + start + len(part)] = part


@dataclass
class Moment:
    """What the disk may hold at one moment, and what callers know."""

    database: dict[str, bytes]
    flushed: dict[int, bytes]
    unflushed: list[Change]
    names: list[Names]
    num_done: int

    def write(self, folder: Path, random: np.random.Generator) -> Path:
        for name, content in self.database.items():
            (folder / name).write_bytes(content)
        files = {number: bytearray(content) for number, content in self.flushed.items()}
        for change in self.unflushed:
            change.apply(files.setdefault(change.number, bytearray()), random)
        for name, number in self.names[random.integers(len(self.names))].items():
            (folder / name).write_bytes(files.get(number, b""))
        return folder / "g"


@dataclass
class Recorder:
    """Records what is written to the files of a gallery."""

    path: Path
    moments: list[Moment] = field(default_factory=list)
    num_done: int = 0
    _flushed: dict[int, bytes] = field(default_factory=dict)
    _unflushed: list[Change] = field(default_factory=list)
    _names: list[Names] = field(default_factory=lambda: [{}])
    _databases: dict[str, int] = field(default_factory=dict)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def recording(name: str, note: Callable[..., None]) -> None:
            original = getattr(os, name)

            def call(*arguments: Any, **options: Any) -> Any:
                result = original(*arguments, **options)
                note(*arguments)
                self.keep()
                return result

            patch.setattr(os, name, call)

        recording("pwrite", lambda file, data, at: self._change(file, at, bytes(data)))
        recording("ftruncate", lambda file, size: self._change(file, size, None))
        recording("fdatasync", self._flush)
        recording("fsync", self._flush)
        recording("replace", lambda *names: self._look_at_names())
        recording("unlink", lambda *names: self._look_at_names())
        create = VectorFile.create.__func__  # type: ignore[attr-defined]

        def creating(kind: type[VectorFile], path: Path, **options: Any) -> VectorFile:
            file: VectorFile = create(kind, path, **options)
            self._unflushed.append(Change(path.stat().st_ino, 0, path.read_bytes()))
            self._look_at_names()
            self.keep()
            return file

        patch.setattr(VectorFile, "create", classmethod(creating))

    def keep(self) -> None:
        """Note a moment."""
        self.moments.append(
            Moment(
                self._database(),
                dict(self._flushed),
                list(self._unflushed),
                list(self._names),
                self.num_done,
            )
        )

    def _database(self) -> dict[str, bytes]:
        files = {}
        for name in ("g", "g-wal"):
            path = self.path.with_name(name)
            if path.exists():
                # Closing a descriptor would drop the locks of SQLite, so it stays open.
                number = self._databases.setdefault(name, -1)
                if number < 0 or not os.path.samestat(os.fstat(number), path.stat()):
                    self._databases[name] = number = os.open(path, os.O_RDONLY)
                files[name] = os.pread(number, os.fstat(number).st_size, 0)
        return files

    def _change(self, file: int, at: int, data: bytes | None) -> None:
        self._unflushed.append(Change(os.fstat(file).st_ino, at, data))

    def _flush(self, file: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{file}"):
            self._names = self._names[-1:]
            return
        number = os.fstat(file).st_ino
        mine = [change for change in self._unflushed if change.number == number]
        self._unflushed = [change for change in self._unflushed if change.number != number]
        content = bytearray(self._flushed.get(number, b""))
        for change in mine:
            change.apply(content, _Everything())  # type: ignore[arg-type]
        if mine:
            self._flushed[number] = bytes(content)

    def _look_at_names(self) -> None:
        paths = (vectors_of(self.path), next_vectors_of(self.path))
        names = {path.name: path.stat().st_ino for path in paths if path.exists()}
        if names != self._names[-1]:
            self._names.append(names)


class _Everything:
    """Keeps all changes."""

    def choice(self, choices: list[str]) -> str:
        return choices[0]


def unit(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


QUERY = unit(1, 99)[0]


def content_of(gallery: Gallery) -> Content:
    vectors = gallery._store.vectors(list(gallery))
    return {id_: tuple(vector.tolist()) for id_, vector in vectors.items()}


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[list[Moment], list[Content]]]:
    """Moments of some additions, deletions and a compaction, and the contents between these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_file, "BLOCK_ROWS", BLOCK)
        patch.setattr(exact, "BLOCK_ROWS", BLOCK)
        patch.setattr(codes, "least_rows", lambda: 8)
        folder = tmp_path_factory.mktemp("recorded")
        recorder = Recorder(folder / "g")
        contents: list[Content] = [{}]
        with Gallery(folder / "g", dim=DIM) as gallery, pytest.MonkeyPatch.context() as recording:
            recorder.install(recording)
            for number, change in enumerate(CHANGES):
                change(gallery, number)
                contents.append(content_of(gallery))
                recorder.num_done += 1
                recorder.keep()
        yield recorder.moments, contents


def adding(count: int) -> Callable[[Gallery, int], object]:
    return lambda gallery, seed: gallery.add(unit(count, seed), [None] * count)


def deleting(*ids: int) -> Callable[[Gallery, int], object]:
    return lambda gallery, seed: gallery.delete(ids)


CHANGES: list[Callable[[Gallery, int], object]] = [
    adding(5),
    adding(1),
    adding(30),  # ends two blocks
    deleting(2, 3, 20),
    adding(3),
    deleting(36),
    lambda gallery, seed: gallery.compact(),
    adding(20),
    deleting(1, 40, 41),
    adding(2),
]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="records the calls of Linux")
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_nothing_acknowledged_is_lost_and_nothing_wrong_is_served(recorded, step: int):
    moments, contents = recorded
    random = np.random.default_rng(0)
    assert len(moments) > 100
    cases = [moment for moment in moments for _ in range(1 + 2 * bool(moment.unflushed))]
    for number, moment in enumerate(cases[::step]):
        # In memory, since each opening flushes.
        with TemporaryDirectory(dir="/dev/shm") as folder, warnings.catch_warnings():
            warnings.simplefilter("error")  # no vector is called damaged
            path = moment.write(Path(folder), random)
            with Gallery(path) as gallery:
                content = content_of(gallery)
                hits = gallery.search(QUERY[None], 100)[0]
            stored = vectors_of(path).read_bytes() if vectors_of(path).exists() else b""
        assert content in contents[moment.num_done : moment.num_done + 2], f"moment {number}"
        scores = {id_: float(np.dot(vector, QUERY)) for id_, vector in content.items()}
        assert {hit.id: hit.score for hit in hits} == pytest.approx(scores, abs=1e-6)
        for vector in deleted_before(contents, moment.num_done):
            assert np.array(vector, np.float32).tobytes() not in stored


def deleted_before(contents: list[Content], num_done: int) -> set[tuple[float, ...]]:
    """Vectors of pictures that were deleted by changes that had returned."""
    ever = {vector for content in contents[:num_done] for vector in content.values()}
    return ever - set(contents[num_done].values())
