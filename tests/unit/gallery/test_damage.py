"""A damaged file gives an error or the right answer, never a wrong one in silence."""

from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import FinegrainError, GalleryError
from finegrain.gallery import Gallery, Row

DIM = 16
COUNT = 300
PAGE = 16384
ASKED = (None, "camera = 'gate-2'", "price < 50", "pid > 250 and colour = 'red'", "track is null")


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
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
        )
        gallery.delete(range(20, 40))
    return path.read_bytes()


def answers(path: Path) -> list[list[tuple[float, Row]]]:
    """Scores and rows of some searches."""
    with Gallery(path, fingerprint="plan", dim=DIM, create=False) as gallery:
        found = []
        for where in ASKED:
            for hits in gallery.search(unit(2, seed=1), 12, where=where):
                rows = gallery.rows(hit.id for hit in hits)
                assert len(rows) == len(hits)
                found.append([(hit.score, row) for hit, row in zip(hits, rows, strict=True)])
        return found


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """The file with one kind of damage at a place drawn at random."""
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
        case 4:  # a page in the place of another one
            first, second = random.integers(len(changed) // PAGE, size=2) * PAGE
            changed[first : first + PAGE] = data[second : second + PAGE]
        case 5:
            del changed[at:]
    return bytes(changed)


def num_wrong(valid: bytes, folder: Path, count: int) -> list[int]:
    """Seeds of the damage that went unnoticed."""
    warnings.simplefilter("ignore")
    path = folder / "g"
    path.write_bytes(valid)
    expected = answers(path)
    wrong = []
    for seed in range(count):
        for file in folder.iterdir():
            file.unlink()
        path.write_bytes(damaged(valid, np.random.default_rng(seed)))
        try:
            given = answers(path)
        except FinegrainError:
            continue
        if given != expected:
            wrong.append(seed)
    return wrong


def test_no_damage_gives_a_wrong_answer(valid: bytes, tmp_path: Path):
    assert num_wrong(valid, tmp_path, 120) == []


@pytest.mark.slow
def test_no_damage_of_a_thousand_gives_a_wrong_answer(valid: bytes, tmp_path: Path):
    assert num_wrong(valid, tmp_path, 1000) == []


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("DELETE FROM vector WHERE picture = 5", "pictures without a vector: 5"),
        ("UPDATE vector SET data = zeroblob(64), checksum = NULL WHERE picture = 5", "length 1"),
        ("UPDATE vector SET data = x'00' WHERE picture = 5", "does not have 16 numbers"),
        ("UPDATE vector SET checksum = 0 WHERE picture = 5", "does not agree with its checksum"),
        (
            "UPDATE vector SET picture = 999 WHERE picture = 5",
            "rows of vector belong to no picture",
        ),
        ("UPDATE sqlite_sequence SET seq = 100", "ids above the last assigned id: 101, 102"),
        ("UPDATE picture SET added_at = 'now' WHERE id = 5", "pictures with an invalid time: 5"),
        ("UPDATE attribute SET kind = 'text' WHERE picture = 5", "value of the wrong kind: 5"),
        ("DELETE FROM seen WHERE name = 'price'", "column that filters do not know: 1, 2"),
        ("INSERT INTO thumbnail VALUES (5, x'00')", "thumbnail is not a JPEG file: 5"),
    ],
)
def test_a_check_names_what_is_wrong(valid: bytes, tmp_path: Path, damage: str, fault: str):
    (tmp_path / "g").write_bytes(valid)
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.check().is_valid
        with sqlite3.connect(tmp_path / "g") as connection:
            connection.execute(damage)
        report = gallery.check()
        assert not report.is_valid
        assert any(fault in line for line in report.faults), report
        assert "INVALID" in str(report)


def test_a_picture_without_a_vector_is_not_left_out_in_silence(valid: bytes, tmp_path: Path):
    (tmp_path / "g").write_bytes(valid)
    with sqlite3.connect(tmp_path / "g") as connection:
        connection.execute("DELETE FROM vector WHERE picture = 5")
    with (
        Gallery(tmp_path / "g") as gallery,
        pytest.raises(GalleryError, match="picture 5 does not"),
    ):
        gallery.search(unit(1), 3)


def test_a_check_of_damaged_tokens_and_of_what_may_be_read_by_others(valid: bytes, tmp_path: Path):
    (tmp_path / "g").write_bytes(valid)
    (tmp_path / "g").chmod(0o644)
    (tmp_path / "g.tokens").write_bytes(b"no database" * 100)
    with Gallery(tmp_path / "g") as gallery:
        report = gallery.check()
    assert any("g.tokens: file is not a database; remove it" in line for line in report.faults)
    assert any("may be read by others (mode 644)" in line for line in report.remarks)
