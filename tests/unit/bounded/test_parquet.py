"""Small Parquet files that would become large in memory are refused before they are unpacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finegrain.bounded import parquet as parquet_bounds
from finegrain.data.catalog.rows import open_table
from finegrain.errors import DataError

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ENCODINGS = (
    {"use_dictionary": False},
    {"use_dictionary": True},
    {"use_dictionary": True, "data_page_version": "2.0"},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(columns: dict[str, Any], **options: Any) -> Path:
        path = tmp_path / "t.parquet"
        parquet.write_table(arrow.table(columns), path, compression="zstd", **options)
        return path

    return written


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(open_table(path).rows)


def rows_at_once(path: Path, most: int = 256) -> int:
    return parquet_bounds.rows_at_once(path, parquet.ParquetFile(path).metadata, most)


@pytest.mark.parametrize("options", ENCODINGS)
def test_pages_of_all_kinds_are_counted(write, options, monkeypatch):
    texts = [f"{number % 40:05}" * 20 for number in range(5000)]
    nested = [[number, None] for number in range(5000)]
    path = write(
        {"text": texts, "number": range(5000), "list": nested}, row_group_size=2000, **options
    )
    assert len(list(open_table(path).rows)) == 5000
    assert rows_at_once(path) == 256
    metadata = parquet.ParquetFile(path).metadata
    stated = [
        metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(3)
        for column in range(3)
    ]
    # The stated sizes count the headers of pages as well.
    monkeypatch.setattr(parquet_bounds, "MAX_RATIO", 0)
    monkeypatch.setattr(parquet_bounds, "ALWAYS_READ", sum(stated))
    assert rows_at_once(path) == 256
    monkeypatch.setattr(parquet_bounds, "ALWAYS_READ", sum(stated) * 8 // 10)
    refused(path, "bytes after unpacking for its size")


def test_a_footer_that_states_small_sizes_changes_nothing(write, monkeypatch):
    monkeypatch.setattr(parquet_bounds, "ALWAYS_READ", 1 << 20)
    path = write({"image": [b"\0" * (2 << 20)]}, use_dictionary=False, write_statistics=False)
    column = parquet.ParquetFile(path).metadata.row_group(0).column(0)
    true, small = varint(column.total_uncompressed_size), varint(100)
    lie = bytes(byte | 0x80 for byte in small) + b"\x80\x80" * len(true)
    lie = lie[: len(true) - 1] + b"\0"
    page, footer = path.read_bytes()[:40], path.read_bytes()[40:]
    path.write_bytes(page + footer.replace(true, lie))
    stated = parquet.ParquetFile(path).metadata.row_group(0).column(0)
    assert stated.total_uncompressed_size == 100
    refused(path, "expected at most 1,048,576 bytes after unpacking for its size, got 2,097,1")


def varint(number: int) -> bytes:
    number <<= 1
    sevens = []
    while number:
        sevens.append(number & 0x7F)
        number >>= 7
    return bytes([*(byte | 0x80 for byte in sevens[:-1]), sevens[-1]])


def test_runs_of_empty_values_are_counted(write, monkeypatch):
    monkeypatch.setattr(parquet_bounds, "ALWAYS_VALUES", 100_000)
    empty = arrow.array([[None] * 500_000], arrow.list_(arrow.int8()))
    refused(write({"image": ["a.jpg"], "list": empty}), "at most 1[0-9]+,[0-9]+ values")
    refused(write({"image": arrow.nulls(500_000, arrow.string())}), "values")


def test_many_rows_or_columns_are_refused(write, monkeypatch):
    monkeypatch.setattr(parquet_bounds, "ALWAYS_ROWS", 1000)
    refused(write({"image": arrow.nulls(9000, arrow.string())}), "rows for its size, got 9,000")
    monkeypatch.setattr(parquet_bounds, "MAX_COLUMNS", 10)
    refused(write({f"c{number}": [1] for number in range(11)}), "at most 10 columns")
    monkeypatch.setattr(parquet_bounds, "MAX_FOOTER_BYTES", 100)
    refused(write({"image": ["a.jpg"]}), "its footer has .* bytes; expected at most 100")


@pytest.mark.parametrize("options", ENCODINGS)
def test_fewer_rows_are_read_at_once_if_values_are_long(write, options):
    long = "x" * (1 << 20)
    path = write(
        {"text": [long] * 8, "other": ["y"] * 8}, dictionary_pagesize_limit=1 << 24, **options
    )
    assert len(list(open_table(path).rows)) == 8
    longest = 8 << 20 if options == ENCODINGS[0] else 1 << 20
    assert rows_at_once(path, 10_000) in range(
        parquet_bounds.MAX_BATCH_BYTES // longest * 9 // 10,
        parquet_bounds.MAX_BATCH_BYTES // longest + 1,
    )


@pytest.mark.parametrize("place", range(0, 60, 3))
@pytest.mark.parametrize("byte", [0x00, 0x15, 0xFF])
def test_a_damaged_page_header_is_an_error(write, place, byte):
    path = write({"image": ["a.jpg", "b.jpg"], "size": [1, 2]})
    data = bytearray(path.read_bytes())
    data[4 + place] = byte
    path.write_bytes(data)
    try:
        assert len(list(open_table(path).rows)) <= 2
    except DataError as error:
        assert "could not read it" in str(error)  # noqa: PT017


def test_a_file_without_rows_is_read(write):
    """Its columns have a dictionary and no data page."""
    for dictionary in (True, False):
        columns = {
            "text": arrow.array([], arrow.string()),
            "number": arrow.array([], arrow.int64()),
        }
        path = write(columns, use_dictionary=dictionary)
        assert rows_at_once(path) == 256
        assert list(open_table(path).rows) == []
