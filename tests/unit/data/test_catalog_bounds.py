"""Reading a hostile table takes work in proportion to its size, or is refused."""

from __future__ import annotations

import gc
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from finegrain.bounded import parquet as parquet_bounds
from finegrain.data.catalog import json_rows, price_columns, rows, values, workbook
from finegrain.data.catalog.json_rows import read_json, read_json_lines
from finegrain.data.catalog.pictures import names_in
from finegrain.data.catalog.row import FIND_OUT, unambiguous
from finegrain.data.catalog.webdataset import read_webdataset
from finegrain.data.catalog.xml_items import read_xml_items
from finegrain.data.pictures import MissingPictureError, PictureFolder
from finegrain.errors import DataError

MANY = 30_000


def test_many_sparse_columns_take_linear_work(monkeypatch: pytest.MonkeyPatch):
    counted: list[int] = []
    convert, parse = values._text_converter, price_columns._prices

    def converter(cells):
        counted.append(len(cells))
        return convert(cells)

    def prices(name, cells):
        counted.append(len(cells))
        return parse(name, cells)

    monkeypatch.setattr(values, "_text_converter", converter)
    monkeypatch.setattr(price_columns, "_prices", prices)
    sparse = [{f"price {place}": f"${place + 1}", "size": "M"} for place in range(MANY)]
    priced, odd = price_columns.with_prices(values.of_one_type(sparse, is_text=True))
    assert sum(counted) == 4 * MANY
    assert priced[7] == {"price 7": 8.0, "size": "M", "price 7_currency": "$"}
    assert not odd


def test_a_wide_row_of_prices_is_converted_in_place():
    ((row,), _) = price_columns.with_prices([{f"price {n}": "$1" for n in range(MANY)}])
    assert len(row) == 2 * MANY


@pytest.mark.parametrize("separator", [",", " ", "; "])
def test_a_sequence_of_separators_is_tried_once(separator: str):
    cell = f"a.jpg{separator * MANY}x" + separator * MANY + "https://shop.example/b.jpg"
    assert names_in(cell) == [f"a.jpg{separator * MANY}x", "https://shop.example/b.jpg"]


def test_a_cell_of_endings_is_read_once():
    cell = f"{'.jpg?' * MANY} x|y"
    assert names_in(cell) == [cell]
    cell = f"{'.jpg?' * MANY}|b.png#x"
    assert names_in(cell) == cell.split("|")


def test_blank_names_of_columns_are_dropped():
    assert unambiguous(["image", *[""] * 500_000]) == (("image",), [])


def test_many_missing_pictures_list_their_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(50):
        (tmp_path / f"{number}.JPG").touch()
    folder = PictureFolder(tmp_path)
    listed: list[Path] = []
    list_ = folder._list
    monkeypatch.setattr(folder, "_list", lambda path: listed.append(path) or list_(path))
    for number in range(100):
        hint = f"there is '{number}.JPG'" if number < 50 else "not found"
        with pytest.raises(MissingPictureError, match=hint):
            folder.find(f"{number}.jpg")
    assert len(listed) == 101  # once for each name, and once for all suggestions


def feed(tmp_path: Path, item: str, namespace: str = "http://base.google.com/ns/1.0") -> Path:
    path = tmp_path / "feed.xml"
    path.write_text(f'<rss xmlns:g="{namespace}"><item>{item}</item></rss>')
    return path


def test_repeated_children_are_gathered_once(tmp_path: Path):
    (row,) = read_xml_items(feed(tmp_path, "<g:id>1</g:id>" + "<g:a>x</g:a>" * MANY))
    assert row.cells == {"id": "1", "a": ["x"] * MANY}


def test_a_long_namespace_is_not_copied_for_each_name(tmp_path: Path):
    path = feed(tmp_path, "<g:a>x</g:a>" * MANY, "http://x/" + "n" * 1_000_000)
    (row,) = read_xml_items(path)
    assert row.cells == {"a": ["x"] * MANY}


def test_a_line_of_json_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_rows, "MAX_LINE", 100)
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n' + json.dumps({"a": "x" * 200}) + '\n{"a": 2}\n')
    first, second = read_json_lines(path, FIND_OUT)
    assert first.cells == {"a": 1}
    assert second.invalid == "is longer than 100 characters, so that the rest is not read"


def test_sparse_columns_of_json_are_refused(tmp_path: Path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({f"c{n}": {str(n): 1} for n in range(MANY)}))
    with pytest.raises(DataError, match="expected columns of one length"):
        list(read_json(path, FIND_OUT))


def test_commas_between_the_objects_of_json_are_skipped(tmp_path: Path):
    path = tmp_path / "t.json"
    path.write_text('[{"a": 1}' + " ,\n" * 500_000 + '{"a": 2}]')
    assert [row.cells["a"] for row in read_json(path, FIND_OUT)] == [1, 2]


def test_a_workbook_that_decompresses_to_too_many_bytes_is_refused(tmp_path: Path):
    path = tmp_path / "t.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/styles.xml", bytes(20 << 20))
    with pytest.raises(DataError, match="20 MiB after unpacking"):
        rows.open_table(path)


def test_a_workbook_with_too_many_styles_is_refused(tmp_path: Path):
    openpyxl = pytest.importorskip("openpyxl")
    path = tmp_path / "t.xlsx"
    book = openpyxl.Workbook()
    book.active.append(["image"])
    book.active.append(["a.jpg"])
    book.save(path)
    assert len(list(rows.open_table(path).rows)) == 1
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/more.xml", b"<font/>" * (2 * workbook.MAX_TAGS))
    with pytest.raises(DataError, match="far more tags"):
        rows.open_table(path)


def test_a_workbook_with_too_many_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("openpyxl")
    monkeypatch.setattr(workbook, "MAX_DIRECTORY_BYTES", 128 << 10)
    path = tmp_path / "t.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(700):
            archive.writestr(f"{number:0200d}", b"")
    with pytest.raises(DataError, match="its directory of members has 1"):
        rows.open_table(path)


def test_merged_cells_count_in_each_of_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["image", "caption", *(f"c{n}" for n in range(40))])
    book.active.append(["2.jpg", "coat", *range(40)])
    for number in range(3, 60):
        book.active.append([f"{number}.jpg", "coat"])
    for column in range(3, 43):
        book.active.merge_cells(start_row=2, end_row=60, start_column=column, end_column=column)
    path = tmp_path / "t.xlsx"
    book.save(path)
    assert len(list(rows.open_table(path).rows)) == 58
    monkeypatch.setattr(workbook, "MAX_CELLS", 2200)
    with pytest.raises(DataError, match="are merged"):
        list(rows.open_table(path).rows)


def workbook_of_shared_text(path: Path, text: str, num_rows: int) -> None:
    """A workbook whose rows refer to a caption that is stored once."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["image", "caption"])
    for number in range(num_rows):
        book.active.append([f"{number}.jpg", "SHARED"])
    book.save(path)
    cell = '<is><t xml:space="preserve">SHARED</t></is>', "<is><t>SHARED</t></is>"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    for inline in cell:
        parts[sheet] = parts[sheet].replace(f't="inlineStr">{inline}', 't="s"><v>0</v>')
    assert "SHARED" not in parts[sheet]
    strings = "xl/sharedStrings.xml"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    parts["[Content_Types].xml"] = parts["[Content_Types].xml"].replace(
        "</Types>", f'<Override PartName="/{strings}" ContentType="{kind}"/></Types>'
    )
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    parts[strings] = f'<sst xmlns="{space}"><si><t>{text}</t></si></sst>'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_a_text_that_excel_cannot_hold_is_left_empty(tmp_path: Path):
    path = tmp_path / "t.xlsx"
    workbook_of_shared_text(path, "x" * workbook.MAX_TEXT, 3)
    assert [len(row.cells["caption"]) for row in rows.open_table(path).rows] == [32_767] * 3
    workbook_of_shared_text(path, "x" * (1 << 20), 3)
    read = list(rows.open_table(path).rows)
    assert [row.cells["caption"] for row in read] == [None] * 3
    assert read[0].odd == ("'caption' is longer than the 32,767 characters of a cell in Excel; "
                           "left empty",)  # fmt: skip


def test_a_shared_text_counts_in_each_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "t.xlsx"
    workbook_of_shared_text(path, "x" * 30_000, 200)
    assert len(list(rows.open_table(path).rows)) == 200
    monkeypatch.setattr(workbook, "_ALWAYS_CHARACTERS", 1 << 22)
    with pytest.raises(DataError, match=r"t\.xlsx: sheet 'Sheet' has more than 4,194,304 char"):
        list(rows.open_table(path).rows)


def test_a_small_workbook_may_have_fewer_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["image", "caption"])
    for number in range(2, 60):
        book.active.cell(number, 1, "a.jpg")
        book.active.cell(number, 16_384, "x")
    path = tmp_path / "t.xlsx"
    book.save(path)
    assert len(list(rows.open_table(path).rows)) == 58
    monkeypatch.setattr(workbook, "_ALWAYS_CELLS", 0)
    with pytest.raises(DataError, match="cells with the empty ones"):
        list(rows.open_table(path).rows)


def shard(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "s.tar"
    path.write_bytes(data)
    return path


def good_member() -> bytes:
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, content in (("a.txt", b"coat"), ("a.jpg", jpeg.getvalue())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            offset = archive.offset
        return file.getvalue()[:offset]


def test_sparse_members_are_not_read(tmp_path: Path):
    member = tarfile.TarInfo("b.jpg")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:398] = b"%011o\0" % 0  # a block without data
    header[398:410] = b"%011o\0" % 0
    header[483:495] = b"%011o\0" % (100 << 20)  # the size including the holes
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    read = read_webdataset(shard(tmp_path, good_member() + bytes(header) * 50 + bytes(1024)))
    (problem,) = read["all"].problems
    assert "is sparse" in problem.why


@pytest.fixture
def without_garbage() -> Iterator[None]:
    """Objects of earlier tests must not be finalised when the recursion limit is reached."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_garbage")
def test_a_chain_of_long_names_ends_a_shard(tmp_path: Path):
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
    chain = (member.tobuf(tarfile.GNU_FORMAT) + b"b".ljust(512, b"\0")) * 5000
    read = read_webdataset(shard(tmp_path, good_member() + chain))
    assert len(read["all"].samples) == 1
    assert "breaks off" in read["all"].problems[0].why


def test_repeated_values_of_parquet_count_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    repeated = arrow.array(["x" * 100_000, None] * 1000).dictionary_encode()
    parquet.write_table(arrow.table({"image": repeated}), path, compression="gzip")
    assert len(list(rows.open_table(path).rows)) == 2000
    monkeypatch.setattr(parquet_bounds, "ALWAYS_READ", 1 << 26)
    with pytest.raises(DataError, match="after unpacking"):
        list(rows.open_table(path).rows)
