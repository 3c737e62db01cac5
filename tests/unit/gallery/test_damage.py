"""A damaged file gives an error, or a warning and correct results; never silently wrong ones."""

from __future__ import annotations

import io
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from finegrain.errors import FinegrainError, GalleryWarning
from finegrain.gallery import Gallery, Row
from finegrain.gallery.sqlite import vector_file
from finegrain.index import codes
from tests.unit.gallery.damaging import vectors_file

DIM = 16
COUNT = 300
PAGE = 16384
ASKED = (None, "camera = 'gate-2'", "price < 50", "pid > 250 and colour = 'red'", "track is null")


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 40, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


class Files(NamedTuple):
    """The content of both files of a gallery."""

    database: bytes
    vectors: bytes

    def write(self, path: Path) -> None:
        path.write_bytes(self.database)
        vectors_file(path).write_bytes(self.vectors)


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_file, "BLOCK_ROWS", 64)
        patch.setattr(codes, "least_rows", lambda: 32)
        yield


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory, _small_blocks: None) -> Files:
    path = tmp_path_factory.mktemp("valid") / "g"
    with Gallery(path, fingerprint="plan", dim=DIM) as gallery:
        gallery.add(
            unit(COUNT),
            [f"crops/{i}.jpg" for i in range(COUNT)],
            pids=range(COUNT),
            cameras=[f"gate-{i % 5}" for i in range(COUNT)],
            times=["2026-05-01T08:00"] * COUNT,
            tracks=[None if i % 4 else f"t{i}" for i in range(COUNT)],
            metadata=[
                {"price": i % 90, "colour": "red" if i % 3 else "blue"} for i in range(COUNT)
            ],
            thumbnails=[None if i % 10 else jpeg(i) for i in range(COUNT)],
        )
        gallery.delete(range(20, 40))
    return Files(path.read_bytes(), vectors_file(path).read_bytes())


Answer = tuple[float, Row, bytes | None]


def answers(gallery: Gallery) -> list[list[Answer]]:
    """Scores, rows and thumbnails of several searches."""
    answers = []
    for where in ASKED:
        for hits in gallery.search(unit(2, seed=1), 12, where=where):
            ids = [hit.id for hit in hits]
            rows = gallery.rows(ids)
            assert [row.id for row in rows] == ids
            thumbnails = gallery.thumbnails(ids)
            answers.append(
                [(h.score, row, thumbnails.get(h.id)) for h, row in zip(hits, rows, strict=True)]
            )
    return answers


def opened(path: Path) -> Gallery:
    return Gallery(path, fingerprint="plan", dim=DIM, create=False)


def damaged(valid: Files, random: np.random.Generator) -> Files:
    """Both files, with damage to one of them."""
    if random.random() < 0.5:
        return valid._replace(database=with_damage(valid.database, random))
    return valid._replace(vectors=with_damage(valid.vectors, random))


def with_damage(data: bytes, random: np.random.Generator) -> bytes:
    """The file with one kind of damage at a random position."""
    changed = bytearray(data)
    at = int(random.integers(100, len(changed)))
    match random.integers(6):
        case 0:
            changed[at] ^= 1 << int(random.integers(8))
        case 1:
            changed[at] = int(random.integers(256))
        case 2:
            size = int(random.integers(2, 600))
            changed[at : at + size] = random.bytes(min(size, len(changed) - at))
        case 3:  # a block that was never written
            block = at // 512 * 512
            changed[block : block + 512] = bytes(min(512, len(changed) - block))
        case 4:  # one page in place of another
            first, second = random.integers(len(changed) // PAGE, size=2) * PAGE
            changed[first : first + PAGE] = data[second : second + PAGE]
        case 5:
            del changed[at:]
    return bytes(changed)


class Expected:
    """The correct results, without the pictures that are named as damaged."""

    def __init__(self, valid: Files, path: Path) -> None:
        self._valid = valid
        self._path = path
        self._answers: dict[frozenset[int], list[list[Answer]]] = {}

    def without(self, ids: frozenset[int]) -> list[list[Answer]]:
        if ids not in self._answers:
            self._valid.write(self._path)
            with opened(self._path) as gallery:
                gallery.delete(ids)
                self._answers[ids] = answers(gallery)
        return self._answers[ids]


def agree(given: list[list[Answer]], expected: list[list[Answer]], warned: list[str]) -> bool:
    """Whether results are correct, apart from thumbnails that a warning names."""

    named = {
        int(id_)
        for text in warned
        for ids in re.findall(r"the thumbnail of pictures? ([\d, ]+) is damaged", text)
        for id_ in ids.split(",")
    }

    def unnamed(answer: Answer) -> Answer:
        score, row, _ = answer
        return (score, row, None) if row.id in named else answer

    return [list(map(unnamed, some)) for some in given] == [
        list(map(unnamed, some)) for some in expected
    ]


def num_wrong(valid: Files, folder: Path, count: int) -> list[int]:
    """Seeds of damage that was not detected, or that affected other pictures."""
    (folder / "valid").mkdir()
    (folder / "damaged").mkdir()
    expected = Expected(valid, folder / "valid" / "g")
    wrong = []
    for seed in range(count):
        for file in (folder / "damaged").iterdir():
            file.unlink()
        path = folder / "damaged" / "g"
        damaged(valid, np.random.default_rng(seed)).write(path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with opened(path) as gallery:
                    given = answers(gallery)
                    named = gallery.damaged()
            except FinegrainError:
                continue
        warned = [str(warning.message) for warning in caught]
        assert all(any(str(id_) in text for text in warned) for id_ in sorted(named)[:10])
        if not agree(given, expected.without(named), warned):
            wrong.append(seed)
    return wrong


def test_damage_never_gives_a_wrong_result(valid: Files, tmp_path: Path):
    assert num_wrong(valid, tmp_path, 120) == []


@pytest.mark.torture
def test_a_thousand_kinds_of_damage_never_give_a_wrong_result(valid: Files, tmp_path: Path):
    assert num_wrong(valid, tmp_path, 1000) == []


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("UPDATE picture SET vector_checksum = 0 WHERE id = 5", "vector of picture 5 is missing"),
        ("UPDATE sqlite_sequence SET seq = 100", "ids above the last assigned id: 101, 102"),
        ("UPDATE picture SET added_at = 'now' WHERE id = 5", "pictures with an invalid time: 5"),
        ("UPDATE attribute SET kind = 'text' WHERE picture = 5", "value of the wrong kind: 5"),
        ("DELETE FROM seen WHERE name = 'price'", "column that filters do not know: 1, 2"),
        ("INSERT INTO thumbnail VALUES (5, x'00')", "thumbnail is not a JPEG file: 5"),
    ],
)
def test_a_check_names_the_damage(valid: Files, tmp_path: Path, damage: str, fault: str):
    valid.write(tmp_path / "g")
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.check().is_valid
        with sqlite3.connect(tmp_path / "g") as connection:
            connection.execute(damage)
        report = gallery.check()
        assert not report.is_valid
        assert any(fault in line for line in report.faults), report
        assert "INVALID" in str(report)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE sqlite_sequence SET seq = 100",
        "DELETE FROM sqlite_sequence",
        "DELETE FROM seen WHERE name = 'price'",
    ],
)
def test_compacting_repairs_what_other_tables_tell(valid: Files, tmp_path: Path, damage: str):
    valid.write(tmp_path / "g")
    with sqlite3.connect(tmp_path / "g") as connection:
        connection.execute(damage)
    connection.close()
    with Gallery(tmp_path / "g") as gallery:
        assert "finegrain gallery compact FILE" in str(gallery.check())
        gallery.compact()
        assert gallery.check().is_valid
        assert gallery.add(unit(1), ["new.jpg"]) == [COUNT + 1]
        assert len(gallery.ids_where("price = 5")) == 4


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE picture SET added_at = '2020' WHERE id = 5", "the row of picture 5 is damaged"),
        ("UPDATE picture SET pid = '4' WHERE id = 5", "the row of picture 5 is damaged"),
        ("UPDATE picture SET mtime = 17 WHERE id = 5", "the row of picture 5 is damaged"),
        ("UPDATE picture SET camera = x'ff' WHERE id = 5", "the row of picture 5 is damaged"),
        (
            "UPDATE picture SET camera = CAST(x'ff' AS TEXT) WHERE id = 5",
            "the row of picture 5 is damaged",
        ),
        ("UPDATE attribute SET value = 4.0 WHERE picture = 5 AND name = 'price'", "picture 5 is"),
        ("DELETE FROM attribute WHERE picture = 5", "the row of picture 5 is damaged"),
        ("UPDATE picture SET checksum = 0 WHERE id = 5", "the row of picture 5 is damaged"),
        ("UPDATE picture SET expires_at = '2020' WHERE id = 5", "the row of picture 5 is damaged"),
    ],
)
@pytest.mark.parametrize("is_open", [False, True])
def test_a_damaged_picture_is_named_and_the_others_are_searched(
    valid: Files, tmp_path: Path, damage: str, named: str, is_open: bool
):
    path = tmp_path / "g"
    valid.write(path)
    vector = unit(COUNT)[4:5]
    with opened(path) as gallery:
        assert gallery.search(vector, 1)[0][0].id == 5
        expected = gallery.search(vector, 4)[0][1:]

    def use(gallery: Gallery) -> Gallery:
        gallery.expire()
        gallery.search(vector, 3)
        gallery.rows([5])
        return gallery

    def harm() -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(damage)
        connection.close()

    if is_open:
        gallery = opened(path)
        harm()
        with pytest.warns(GalleryWarning, match=named):
            use(gallery)
    else:
        harm()
        with pytest.warns(GalleryWarning, match=named):
            gallery = use(opened(path))
    with gallery:
        assert gallery.damaged() == {5}
        assert gallery.search(vector, 3)[0] == expected
        assert 5 not in list(gallery)
        assert 5 not in [hit.id for hit in gallery.search(vector, 300, where="price < 50")[0]]
        assert not gallery.check().is_valid


def test_a_damaged_picture_that_is_indexed_again_is_repaired(valid: Files, tmp_path: Path):
    valid.write(tmp_path / "g")
    with sqlite3.connect(tmp_path / "g") as connection:
        connection.execute("UPDATE picture SET mtime = 17 WHERE id = 5")
    with pytest.warns(GalleryWarning, match="the row of picture 5"):
        gallery = opened(tmp_path / "g")
    with gallery:
        assert gallery.known(["crops/4.jpg"]) == set()
        (new,) = gallery.add(unit(COUNT)[4:5], ["crops/4.jpg"], on_duplicate="skip")
        assert gallery.rows([new])[0].image == "crops/4.jpg"
        assert gallery.check().is_valid


def test_a_damaged_thumbnail_is_named_and_left_out(valid: Files, tmp_path: Path):
    valid.write(tmp_path / "g")
    with opened(tmp_path / "g") as gallery:
        assert sorted(gallery.thumbnails([1, 2, 11])) == [1, 11]
        with sqlite3.connect(tmp_path / "g") as connection:
            connection.execute("UPDATE thumbnail SET jpeg = x'FFD8FF00' WHERE picture = 1")
            connection.execute("DELETE FROM thumbnail WHERE picture = 11")
        with pytest.warns(GalleryWarning, match="the thumbnail of pictures 1, 11 is damaged"):
            assert gallery.thumbnails([1, 2, 11]) == {}
        assert any(
            "thumbnail does not agree with its checksum: 1, 11" in fault
            for fault in gallery.check().faults
        )


CHANGES: dict[str, Callable[[Gallery], object]] = {
    "update": lambda gallery: gallery.update("camera = 'gate-2'", {"camera": "x", "stock": True}),
    "remove a value": lambda gallery: gallery.update([1, 2, 3], {"price": None, "pid": None}),
    "replace": lambda gallery: gallery.add(
        unit(1), ["crops/7.jpg"], thumbnails=[jpeg(3)], on_duplicate="replace"
    ),
    "delete": lambda gallery: gallery.delete([1, 2, 3]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_updates_the_checksums(valid: Files, tmp_path: Path, change: str):
    valid.write(tmp_path / "g")
    with opened(tmp_path / "g") as gallery:
        CHANGES[change](gallery)
        assert gallery.check().is_valid
        assert not gallery.damaged()


def test_a_check_reports_damaged_tokens_and_readable_files(valid: Files, tmp_path: Path):
    valid.write(tmp_path / "g")
    (tmp_path / "g").chmod(0o644)
    (tmp_path / "g.tokens").write_bytes(b"no database" * 100)
    with Gallery(tmp_path / "g") as gallery:
        report = gallery.check()
    assert any("g.tokens: file is not a database; remove it" in line for line in report.faults)
    assert any("may be read by others (mode 644)" in line for line in report.remarks)
