"""Rows of a file that are copied by one call of the system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from finegrain.gallery.sqlite import positioned_file
from finegrain.gallery.sqlite.positioned_file import PositionedFile

ROWS, WIDTH = 9000, 24
CONTENT = np.random.default_rng(0).integers(0, 256, (ROWS, WIDTH), np.uint8)

needs_call = pytest.mark.skipif(
    positioned_file._process_vm_readv() is None, reason="this system has no process_vm_readv"
)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[PositionedFile]:
    (tmp_path / "rows").write_bytes(CONTENT.tobytes())
    opened = PositionedFile(tmp_path / "rows", writable=True)
    yield opened
    opened.close()


def gathered(file: PositionedFile, rows: np.ndarray) -> np.ndarray:
    target = np.empty((len(rows), WIDTH), np.uint8)
    file.gather(rows * WIDTH, target)
    return target


@pytest.fixture(params=["mapped", "positioned"])
def call(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "positioned":
        monkeypatch.setattr(positioned_file, "_process_vm_readv", lambda: None)


@pytest.mark.usefixtures("call")
def test_rows_are_gathered_from_any_places(file: PositionedFile):
    rows = np.flatnonzero(np.random.default_rng(1).random(ROWS) < 0.7)
    assert np.count_nonzero(np.diff(rows) > 1) > 1.2 * positioned_file._MOST_PIECES
    np.testing.assert_array_equal(gathered(file, rows), CONTENT[rows])
    assert gathered(file, rows[:0]).shape == (0, WIDTH)


@pytest.mark.usefixtures("call")
def test_rows_behind_the_former_end_are_gathered(file: PositionedFile):
    gathered(file, np.array([1]))
    file.write(ROWS * WIDTH, CONTENT[:9])
    rows = np.array([0, ROWS - 1, ROWS + 8])
    np.testing.assert_array_equal(gathered(file, rows), CONTENT[[0, ROWS - 1, 8]])


@pytest.mark.usefixtures("call")
def test_a_file_that_became_shorter_is_an_error(file: PositionedFile):
    rows = np.array([1, 2, ROWS - 1])
    gathered(file, rows)
    os.truncate(file.path, 200 * WIDTH)
    with pytest.raises(OSError, match="ends 24 bytes early"):
        gathered(file, rows)
    np.testing.assert_array_equal(gathered(file, rows[:2]), CONTENT[rows[:2]])


@needs_call
def test_one_call_reads_all_rows(file: PositionedFile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PositionedFile, "read_into", None)
    rows = np.arange(0, ROWS, 2)
    np.testing.assert_array_equal(gathered(file, rows), CONTENT[rows])


@needs_call
def test_rows_that_follow_each_other_are_one_piece(
    file: PositionedFile, monkeypatch: pytest.MonkeyPatch
):
    call = positioned_file._process_vm_readv()
    assert call is not None
    pieces = []

    def counted(*arguments: int) -> int:
        pieces.append(arguments[4])
        return int(call(*arguments))

    monkeypatch.setattr(positioned_file, "_process_vm_readv", lambda: counted)
    rows = np.concatenate([np.arange(3, 60), np.arange(200, 290), [ROWS - 1]])
    np.testing.assert_array_equal(gathered(file, rows), CONTENT[rows])
    assert pieces == [3]


def test_a_system_that_forbids_the_call_reads_at_positions(
    file: PositionedFile, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(positioned_file, "_process_vm_readv", lambda: lambda *arguments: -1)
    rows = np.arange(0, ROWS, 7)
    np.testing.assert_array_equal(gathered(file, rows), CONTENT[rows])
