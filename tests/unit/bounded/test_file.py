from pathlib import Path

import pytest

from finegrain.bounded.file import read_bounded
from finegrain.errors import DataError, WeightsError


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(b"12345")
    assert read_bounded(tmp_path / "keys.json", 5, DataError) == b"12345"


def test_a_larger_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(b"123456")
    with pytest.raises(WeightsError, match=r"at most 5 bytes in .*keys\.json"):
        read_bounded(tmp_path / "keys.json", 5, WeightsError)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_bounded(path, 5, DataError)
