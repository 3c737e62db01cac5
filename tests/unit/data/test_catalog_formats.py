"""The format of a table follows its content, and every problem names its row."""

from __future__ import annotations

import json
import sys
import zipfile
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.data.catalog import workbook
from finegrain.data.catalog.rows import open_table
from finegrain.errors import DataError, MissingExtraError

ROWS = [{"image": "a.jpg", "caption": "red coat"}, {"image": "b.jpg", "caption": "blue coat"}]
TEXT = st.text(max_size=20)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT


def write(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def cells(path):
    return [dict(row.cells) for row in open_table(path).rows if row.why is None]


def problems(path):
    return {row.where: row.why for row in open_table(path).rows if row.why is not None}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps({"version": 1, "products": ROWS}),
        json.dumps({"image": {"0": "a.jpg", "1": "b.jpg"},
                    "caption": {"0": "red coat", "1": "blue coat"}}),
        "\n".join(map(json.dumps, ROWS)),
        "\ufeff" + json.dumps(ROWS),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["t.json", "t.txt", "t"])
def test_json_of_every_layout_is_read(tmp_path, content, name):
    assert cells(write(tmp_path, content, name)) == ROWS


def test_one_object_is_one_row(tmp_path):
    assert cells(write(tmp_path, json.dumps(ROWS[0], indent=1), "t.json")) == ROWS[:1]


@given(
    rows=st.lists(st.dictionaries(TEXT, SCALAR, min_size=1, max_size=4), max_size=5),
    indent=st.sampled_from([None, 0, 3]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_json_arrays_are_read_exactly(tmp_path, rows, indent, encoding):
    content = json.dumps(rows, indent=indent)
    assert cells(write(tmp_path, content.encode(encoding), "t.json")) == rows


def test_items_that_are_not_objects_are_named_with_their_line(tmp_path):
    path = write(tmp_path, '[\n{"image": "a.jpg"},\n3,\n\n"x", {"image": "b.jpg"}\n]', "t.json")
    assert [row["image"] for row in cells(path)] == ["a.jpg", "b.jpg"]
    assert problems(path) == {
        "t.json:3": "is not a JSON object but int",
        "t.json:5": "is not a JSON object but str",
    }


def test_a_truncated_array_gives_its_complete_rows(tmp_path):
    path = write(tmp_path, '[{"image": "a.jpg"},\n{"image": "b.jp', "t.json")
    assert cells(path) == [{"image": "a.jpg"}]
    (why,) = problems(path).items()
    assert why[0] == "t.json:2"
    assert why[1].startswith("is not JSON, so that the rest is not read")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{broken", "expected JSON in"),
        ('{"a": [{"x": 1}], "b": [{"x": 2}]}', "expected one array of objects .*, got a, b"),
        ("3", "expected objects in"),
        ("[" * 100_000, "t.json:1: nests too deeply"),
    ],
)
def test_json_that_is_not_a_table_is_refused(tmp_path, content, message):
    path = write(tmp_path, content, "t.json")
    if message.startswith("t.json"):
        assert any(f"{where}: {why}".startswith(message) for where, why in problems(path).items())
        return
    with pytest.raises(DataError, match=message):
        list(open_table(path).rows)


def test_a_too_large_document_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("finegrain.data.catalog.json_rows.MAX_DOCUMENT_BYTES", 10)
    with pytest.raises(DataError, match=r"read into memory.*Write one object per line"):
        open_table(write(tmp_path, json.dumps(ROWS), "t.json"))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("id\ttitle\timage_link\n1\tCoat\ta.jpg\n", "feed.txt"),
        ("id|title|image_link\n1|Coat|a.jpg\n", "feed.dat"),
        ("<rss><channel><item><id>1</id><title>Coat</title><image_link>a.jpg</image_link></item>"
         "</channel></rss>", "feed.txt"),
        ('[{"id": "1", "title": "Coat", "image_link": "a.jpg"}]', "feed"),
    ],
)  # fmt: skip
def test_the_format_of_a_feed_follows_its_content(tmp_path, content, name):
    assert cells(write(tmp_path, content, name)) == [
        {"id": "1", "title": "Coat", "image_link": "a.jpg"}
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "windows-1251", "utf-16"])
def test_a_feed_is_read_in_its_stated_encoding(tmp_path, encoding):
    feed = (
        f'<?xml version="1.0" encoding="{encoding}"?><rss><item><id>1</id><title>Пальто</title>'
        "</item></rss>"
    )
    assert cells(write(tmp_path, feed.encode(encoding), "feed.xml")) == [
        {"id": "1", "title": "Пальто"}
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.7", "a PDF"),
        (b"\x1f\x8b\x08\0", "compressed"),
        (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
        (b"\x7fELF\2\1\1\0", "a binary file"),
    ],
)
def test_the_error_of_another_file_names_its_format(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        open_table(write(tmp_path, content, "t.dat"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected a table at .*, found none"):
        open_table(tmp_path / "t.csv")


# --- Excel ------------------------------------------------------------------------------


def save(path, rows, *, title="Products", more=()):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = title
    for row in rows:
        sheet.append(row)
    for name in more:
        book.create_sheet(name).append(["x"])
    book.save(path)
    return path


def test_a_workbook_keeps_types_and_lines(tmp_path):
    path = save(
        tmp_path / "t.xlsx",
        [
            ["image", "caption", "price", "sold", "time", None],
            ["a.jpg", "red coat", 12.5, True, datetime(2026, 5, 1, 8)],
            [],
            ["b.jpg", "blue coat", 7],
        ],
    )
    table = open_table(path)
    assert table.columns == ("image", "caption", "price", "sold", "time")
    rows = list(table.rows)
    assert [row.where for row in rows] == ["t.xlsx:2", "t.xlsx:4"]
    assert rows[0].cells == {
        "image": "a.jpg", "caption": "red coat", "price": 12.5, "sold": True,
        "time": "2026-05-01T08:00:00",
    }  # fmt: skip
    assert rows[1].cells["price"] == 7
    assert rows[1].cells["sold"] is None


def test_sheets_that_are_left_out_are_named(tmp_path):
    path = save(tmp_path / "t.xlsx", [["image"], ["a.jpg"]], more=["Old"])
    assert open_table(path).notes == ["the sheet 'Old' is not read"]


def test_cells_beside_the_table_are_reported(tmp_path):
    path = save(tmp_path / "t.xlsx", [["image"], ["a.jpg", "?"], ["b.jpg"]])
    assert problems(path) == {"t.xlsx:2": "has more cells than the 1 columns"}
    assert cells(path) == [{"image": "b.jpg"}]


def test_an_invalid_workbook_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected an Excel workbook"):
        open_table(write(tmp_path, "image\n", "t.xlsx"))
    with pytest.raises(DataError, match="expected an Excel workbook"):
        open_table(write(tmp_path, b"PK\x03\x04 broken", "t.xlsx"))
    with zipfile.ZipFile(tmp_path / "z.xlsx", "w") as archive:
        archive.writestr("a.txt", "no workbook")
    with pytest.raises(DataError, match="expected an Excel workbook"):
        open_table(tmp_path / "z.xlsx")
    with pytest.raises(DataError, match="expected rows in"):
        open_table(save(tmp_path / "e.xlsx", []))


def test_a_workbook_that_decompresses_without_end_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "t.xlsx", [["image"], ["a.jpg"]])
    monkeypatch.setattr(workbook, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(DataError, match="after unpacking"):
        open_table(path)


def test_the_error_without_openpyxl_names_the_extra(tmp_path, monkeypatch):
    path = save(tmp_path / "t.xlsx", [["image"], ["a.jpg"]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"finegrain\[xlsx\]"):
        open_table(path)
