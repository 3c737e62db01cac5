"""Tables that shops and spreadsheets export are read correctly, or their rows are reported."""

from __future__ import annotations

import gzip
import itertools
import json
import zipfile
from datetime import date, datetime
from decimal import Decimal

import openpyxl
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from finegrain.data.catalog import compressed, input_kind, read_any_catalog, workbook
from finegrain.errors import DataError


@pytest.fixture
def shop(tmp_path):
    for name in "abc":
        Image.new("RGB", (8, 16)).save(tmp_path / f"{name}.jpg")
    return tmp_path


def read(shop, content, name="t.csv", **options):
    """Captions by picture, metadata by picture, reports by row, and notes."""
    path = shop / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {"for_search": True, "max_bad_share": 1.0, **options}
    split = read_any_catalog(path, **options)["all"]
    return (
        {sample.image.stem: " / ".join(sample.captions) for sample in split.samples},
        {sample.image.stem: dict(sample.metadata) for sample in split.samples},
        {problem.where.removeprefix(name): problem.why for problem in split.problems},
        split.notes,
    )


BOTH = {"a": "red, warm", "b": "blue"}


@pytest.mark.parametrize(
    "content",
    [
        "'image','caption'\n'a.jpg','red, warm'\n'b.jpg','blue'\n",
        "image,caption\n'a.jpg','red, warm'\n'b.jpg','blue'\n",
        "image;caption\n'a.jpg';'red, warm'\n'b.jpg';'blue'\n",
        'image, caption\na.jpg, "red, warm"\nb.jpg, "blue"\n',
        'Product list 2026-05\n\nimage,caption\na.jpg,"red, warm"\nb.jpg,blue\n',
        "Product list 2026-05;\n;\nimage;caption\na.jpg;red, warm\nb.jpg;blue\n",
        '# made by a shop\r\nimage,caption\r\na.jpg,"red, warm"\r\nb.jpg,blue\r\n',
        "sep=;\nProducts\n\nimage;caption\na.jpg;red, warm\nb.jpg;blue\n",
        '\n\nimage,caption\na.jpg,"red, warm"\nb.jpg,blue\n',
        'image,caption\ra.jpg,"red, warm"\rb.jpg,blue\r',
    ],
)
def test_quotes_and_titles_are_read(shop, content):
    captions, _, reports, _ = read(shop, content)
    assert (captions, reports) == (BOTH, {})


def test_a_title_with_commas_is_not_the_header(shop):
    content = "My shop\nExported, by Ann\n\nArtikel;Foto;Farbe\n1;a.jpg;rot\n2;b.jpg;blau\n"
    _, metadata, _, notes = read(shop, content, image_column="Foto")
    assert metadata == {"a": {"Artikel": 1, "Farbe": "rot"}, "b": {"Artikel": 2, "Farbe": "blau"}}
    assert any("column names are in line 4; above them is 'My shop'" in note for note in notes)


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        ("image,caption\na.jpg,'tis red\nb.jpg,women's\n", {"a": "'tis red", "b": "women's"}),
        ('image,caption\na.jpg,12" heel\nb.jpg,\'quoted\' red\n',
         {"a": '12" heel', "b": "'quoted' red"}),
        ("image,caption\na.jpg,it's '90s'\n", {"a": "it's '90s'"}),
    ],
)  # fmt: skip
def test_apostrophes_are_letters(shop, content, captions):
    assert read(shop, content)[0] == captions


def test_rows_with_surplus_cells_are_not_column_names(shop):
    with pytest.raises(DataError, match=r"t.csv:2: has 3 cells, expected 2"):
        read(shop, "image,caption\na.jpg,red,x\nb.jpg,blue,y\n")


@pytest.mark.parametrize("content", ["a.jpg,red\nb.jpg,blue\n", "1\ta.jpg\tred\n2\tb.jpg\tblue\n"])
def test_a_table_without_column_names_is_an_error(shop, content):
    with pytest.raises(DataError, match=r"expected column names in the first row .*'a.jpg'"):
        read(shop, content)


def test_a_nul_character_invalidates_its_row(shop):
    captions, _, reports, _ = read(shop, "image,caption\na.jpg,red\0coat\nb.jpg,blue\n")
    assert captions == {"b": "blue"}
    assert reports == {":2": "holds a NUL character"}


# --- JSON -------------------------------------------------------------------------------

ROWS = [{"image": "a.jpg", "caption": "red, warm"}, {"image": "b.jpg", "caption": "blue"}]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (json.dumps({"image": ["a.jpg", "b.jpg"], "caption": ["red, warm", "blue"]}), "t.json"),
        (json.dumps(ROWS), "t.jsonl"),
        (json.dumps(ROWS), "t.csv"),
        (",\n".join(map(json.dumps, ROWS)) + ",\n", "t.jsonl"),
        (json.dumps(ROWS).encode("utf-16"), "t.json"),
        (json.dumps({"sku 1": ROWS[0], "sku 2": ROWS[1]}), "t.json"),
        (json.dumps({"data": {"items": ROWS}}), "t.json"),
        (json.dumps({"shop": {"products": {"sku 1": ROWS[0], "sku 2": ROWS[1]}}}), "t.json"),
        (
            json.dumps({column: dict(enumerate(r[column] for r in ROWS)) for column in ROWS[0]}),
            "t.json",
        ),
    ],
)
def test_json_of_other_shapes_is_read(shop, content, name):
    captions, _, reports, _ = read(shop, content, name)
    assert (captions, reports) == (BOTH, {})


def test_the_keys_of_json_objects_are_kept(shop):
    content = json.dumps({"sku 1": ROWS[0], "sku 2": {**ROWS[1], "key": "own"}})
    captions, metadata, reports, _ = read(shop, content, "t.json")
    assert (captions, reports) == (BOTH, {})
    assert metadata == {"a": {"key": "sku 1"}, "b": {"key": "own"}}


def test_json_columns_of_different_lengths_are_refused(shop):
    content = json.dumps({"image": ["a.jpg", "b.jpg"], "caption": ["red"]})
    with pytest.raises(DataError, match=r"columns of one length .*image: 2, caption: 1"):
        read(shop, content, "t.json")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ('"n": ' + "9" * 5000, "has a number of 5,000 digits, expected at most 1000"),
        ('"price": 1, "price": 2', "has 'price' twice"),
        ('"more": [{"x": 1, "x": 2}]', "has 'x' twice"),
    ],
)
@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_values_that_json_allows_and_a_row_does_not_are_reported(shop, bad, why, name):
    objects = ['{"image": "a.jpg", "caption": "red", ' + bad + "}", json.dumps(ROWS[1])]
    content = "\n".join(objects) if name == "t.jsonl" else f"[{', '.join(objects)}]"
    captions, _, reports, _ = read(shop, content, name)
    assert captions == {"b": "blue"}
    assert reports == {":1": why}


@pytest.mark.parametrize(
    ("text", "why"), [("x\\u0000y", "NUL character"), ("x\\ud800y", "surrogate pair")]
)
@pytest.mark.parametrize("column", ["caption", "brand"])
def test_characters_that_cannot_be_stored_invalidate_their_row(shop, text, why, column):
    cells = {"image": "a.jpg", "caption": "red", "brand": "x"} | {column: "HERE"}
    line = json.dumps(cells).replace("HERE", text)
    captions, _, reports, _ = read(shop, f"{line}\n{json.dumps(ROWS[1])}\n", "t.jsonl")
    assert captions == {"b": "blue"}
    assert why in reports[":1"]


# --- Parquet ----------------------------------------------------------------------------


def test_parquet_values_have_types(shop):
    columns = {
        "image": ["a.jpg", "b.jpg"],
        "price": pyarrow.array([Decimal("12.50"), None]),
        "short": pyarrow.array([0.1, None], pyarrow.float32()),
        "brand": pyarrow.array(["x", "y"]).dictionary_encode(),
        "name": pyarrow.array([b"coat", None]),
        "blob": pyarrow.array([b"\xff\x00", None]),
        "day": pyarrow.array([date(2026, 5, 1), None]),
        "time": pyarrow.array([datetime(2026, 5, 1, 8), None], pyarrow.timestamp("us")),
        "tags": [["x", "y"], None],
        "size": [{"w": 1, "h": 2}, None],
    }
    parquet.write_table(pyarrow.table(columns), shop / "t.parquet")
    _, metadata, reports, _ = read(shop, None, "t.parquet")
    assert metadata["a"] == {
        "price": 12.5, "short": 0.1, "brand": "x", "name": "coat", "blob": None,
        "day": "2026-05-01", "time": "2026-05-01T08:00:00.000Z", "tags": '["x", "y"]',
        "size": '{"w": 1, "h": 2}',
    }  # fmt: skip
    assert reports == {" row 1": "'blob' is binary; left empty"}


# --- gzip -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('image,caption\na.jpg,"red, warm"\nb.jpg,blue\n', "t.csv.gz"),
        ('image,caption\na.jpg,"red, warm"\nb.jpg,blue\n', "t.csv"),
        (json.dumps(ROWS), "t.json.gz"),
        ("\n".join(map(json.dumps, ROWS)), "t.jsonl.gz"),
    ],
)
def test_compressed_tables_are_read(shop, content, name):
    captions, _, reports, _ = read(shop, gzip.compress(content.encode()), name)
    assert (captions, reports) == (BOTH, {})
    assert input_kind(shop / name) == "catalog"


def test_a_gzip_bomb_is_decompressed_up_to_its_bound(shop, monkeypatch):
    monkeypatch.setattr(compressed, "_ALWAYS_ALLOWED", 1 << 20)
    monkeypatch.setattr(compressed, "_CHUNK", 1 << 16)
    chunks = []
    opened = gzip.open

    def counted(path):
        packed = opened(path)
        read_chunk = packed.read
        packed.read = lambda size: chunks.append(size) or read_chunk(size)
        return packed

    monkeypatch.setattr(compressed.gzip, "open", counted)
    bomb = gzip.compress(b"image,caption\n" + b"a" * (1 << 26))
    with pytest.raises(DataError, match=r"MiB after unpacking .*Unpack it first"):
        read(shop, bomb, "t.csv.gz")
    allowed = max(1 << 20, compressed.MAX_RATIO * len(bomb))
    assert sum(chunks) <= allowed + 2 * (1 << 16)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            gzip.compress(b"image,caption\na.jpg,red\n")[:-9],
            "is compressed, and cannot be unpacked",
        ),
        (gzip.compress(gzip.compress(b"x")), "is a compressed archive"),
        (gzip.compress(b"\0" * 257 + b"ustar" + b"\0" * 250), "is a compressed archive"),
        (b"<!DOCTYPE html><table><tr><td>image</td></tr></table>", "is an HTML page"),
    ],
    ids=["cut", "twice", "tar", "html"],
)
def test_invalid_gzip_is_reported(shop, content, why):
    with pytest.raises(DataError, match=why):
        read(shop, content, "t.xls")


# --- Excel ------------------------------------------------------------------------------


def saved(shop, *rows, **sheets):
    book = openpyxl.Workbook()
    for title, lines in sheets.items():
        sheet = book.create_sheet(title, len(book.worksheets) - 1)
        for line in lines:
            sheet.append(line)
    for row in rows:
        book["Sheet"].append(row)
    return book


def test_a_title_and_a_page_before_the_table_are_skipped(shop):
    rows = [["Product list"], [], ["image", "caption"], ["a.jpg", "red, warm"], ["b.jpg", "blue"]]
    saved(shop, *rows, Readme=[["This is the list of May."]]).save(shop / "t.xlsx")
    captions, _, reports, notes = read(shop, None, "t.xlsx")
    assert (captions, reports) == (BOTH, {})
    assert notes == (
        "t.xlsx: the column names are in row 3; above them is 'Product list'",
        "t.xlsx: the sheet 'Readme' is not read",
    )


def test_merged_cells_count_for_each_of_their_rows(shop):
    rows = [["image", "group"], ["a.jpg", "G1"], ["b.jpg", None], ["c.jpg", None]]
    book = saved(shop, *rows)
    book.active.merge_cells("B2:B3")
    book.save(shop / "t.xlsx")
    _, metadata, _, _ = read(shop, None, "t.xlsx")
    assert [metadata[name]["group"] for name in "abc"] == ["G1", "G1", None]


def test_formulas_without_a_value_are_reported(shop):
    rows = [["image", "price"], ["a.jpg", 2], ["b.jpg", "=B2*2"], ["c.jpg", "#N/A"]]
    saved(shop, *rows).save(shop / "t.xlsx")
    _, metadata, reports, _ = read(shop, None, "t.xlsx")
    assert [metadata[name]["price"] for name in "abc"] == [2, None, None]
    assert "'price' is a formula whose value is not stored" in reports[":3"]
    assert "'price' is #N/A" in reports[":4"]


def with_row(path, row: str):
    """Insert a row into the XML of a workbook."""
    parts = {}
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b"</sheetData>", f"{row}</sheetData>".encode())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_a_huge_row_number_takes_no_more_work_than_a_full_sheet(shop):
    saved(shop, ["image", "caption"], ["a.jpg", "red"]).save(shop / "t.xlsx")
    with_row(shop / "t.xlsx", '<row r="999999999999999"><c r="A9"><v>1</v></c></row>')
    assert read(shop, None, "t.xlsx")[0] == {"a": "red"}


def test_empty_cells_are_bounded(shop, monkeypatch):
    monkeypatch.setattr(workbook, "MAX_CELLS", 10_000)
    saved(shop, ["image", "caption"], ["a.jpg", "red"]).save(shop / "t.xlsx")
    with_row(shop / "t.xlsx", '<row r="3"><c r="XFD3"><v>1</v></c></row>')
    with pytest.raises(DataError, match="more than 10,000 cells with the empty ones"):
        read(shop, None, "t.xlsx")


def test_a_workbook_that_repeats_entities_is_refused(shop):
    saved(shop, ["image"], ["a.jpg"]).save(shop / "t.xlsx")
    levels = [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10)]
    doctype = f'<!DOCTYPE x [<!ENTITY e0 "{"x" * 100}">{"".join(levels)}]>'
    with zipfile.ZipFile(shop / "t.xlsx") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = doctype.encode() + parts[sheet].replace(
        b"</sheetData>",
        b'<row r="3"><c r="A3" t="inlineStr"><is><t>&e9;</t></is></c></row></sheetData>',
    )
    with zipfile.ZipFile(shop / "t.xlsx", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=r"damaged|could not read"):
        read(shop, None, "t.xlsx")


# --- encodings and separators -----------------------------------------------------------

TEXTS = {
    "cp1252": "Mädchenkleid",
    "gb18030": "红色大衣",
    "shift_jis": "赤いコート",
    "utf-16": "赤いコート",
    "utf-16-le": "Mädchenkleid",
    "utf-8-sig": "红色大衣",
    "utf-32": "Mädchenkleid",
}


@pytest.mark.parametrize(("encoding", "mark"), list(itertools.product(TEXTS, ",;\t|")))
def test_encodings_and_separators_are_combined(shop, encoding, mark):
    text = TEXTS[encoding]
    content = f"image{mark}caption{mark}x\na.jpg{mark}{text}{mark}1\nb.jpg{mark}{text}{mark}2\n"
    is_wide = encoding.startswith("utf")
    stated = {} if is_wide else {"encoding": encoding}
    captions, metadata, reports, _ = read(shop, content.encode(encoding), **stated)
    assert captions == {"a": text, "b": text}
    assert metadata == {"a": {"x": 1}, "b": {"x": 2}}
    assert reports == {}
    if not is_wide:  # without the encoding, the guess is reported
        with pytest.raises(DataError, match=r"not UTF-8.*State the encoding"):
            read(shop, content.encode(encoding))


# --- names of pictures ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "sub\\a b.jpg",
        ".\\sub\\a b.jpg",
        "./sub/a b.jpg",
        "sub//a b.jpg",
        "sub/a%20b.jpg",
        "{root}/sub/a b.jpg",
        "file://{root}/sub/a%20b.jpg",
        "file://localhost{root}/sub/a%20b.jpg",
    ],
)
def test_paths_are_read_in_all_spellings(shop, name):
    (shop / "sub").mkdir()
    (shop / "a.jpg").rename(shop / "sub/a b.jpg")
    captions, _, reports, _ = read(shop, f"image\tcaption\n{name.format(root=shop)}\tred\n")
    assert (captions, reports) == ({"a b": "red"}, {})


@pytest.mark.parametrize(
    "name",
    [
        "../in.jpg",
        "..\\in.jpg",
        "sub/../../in.jpg",
        "%2e%2e/in.jpg",
        "%2e%2e%2fin.jpg",
        "/etc/hostname",
        "C:\\pictures\\a.jpg",
        "C:a.jpg",
        "\\\\nas\\share\\a.jpg",
        "{root}/../in.jpg",
        "file://{root}/../in.jpg",
        "file:///C:/a.jpg",
    ],
)
def test_paths_outside_the_folder_are_reported(shop, name):
    folder = shop / "shop"
    folder.mkdir()
    Image.new("RGB", (8, 16)).save(shop / "in.jpg")
    Image.new("RGB", (8, 16)).save(folder / "b.jpg")
    content = f"image\tcaption\n{name.format(root=folder)}\tred\nb.jpg\tblue\n"
    captions, _, reports, _ = read(folder, content)
    assert captions == {"b": "blue"}
    assert list(reports) == [":2"]


def test_a_url_without_a_protocol_is_recognised(shop):
    captions, _, _, _ = read(shop, "image,caption\n//cdn.x/a.jpg,red\n", images_root=shop)
    assert captions == {"a": "red"}
