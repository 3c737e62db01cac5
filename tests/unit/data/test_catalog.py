from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.data.catalog import read_catalog
from finegrain.errors import DataError, MissingExtraError

HEADER = "image,caption,price"


@pytest.fixture
def shop(tmp_path) -> Path:
    """A folder with pictures 1.jpg to 4.jpg in images/."""
    (tmp_path / "images").mkdir()
    for number in range(1, 5):
        (tmp_path / "images" / f"{number}.jpg").touch()
    return tmp_path


def write(shop: Path, *lines: str, name="catalog.csv", encoding="utf-8") -> Path:
    table = shop / name
    table.write_text("\n".join(lines) + "\n", encoding=encoding)
    return table


def test_reads_pictures_captions_and_metadata(shop):
    table = write(
        shop,
        "image,caption,colour,sku,price,stock,sale",
        "images/1.jpg,A red coat,red,007,19.5,3,true",
        'images/2.jpg,"A coat, blue",,12,20,,False',
    )
    split = read_catalog(table)["all"]
    first, second = split.samples
    assert first.image == shop / "images" / "1.jpg"
    assert (first.captions, first.pid) == (("A red coat",), None)
    assert (second.captions, second.pid) == (("A coat, blue",), None)
    assert first.metadata == {
        "colour": "red", "sku": "007", "price": 19.5, "stock": 3, "sale": True,
    }  # fmt: skip
    assert second.metadata == {
        "colour": None, "sku": "12", "price": 20.0, "stock": None, "sale": False,
    }  # fmt: skip
    assert isinstance(second.metadata["price"], float)
    assert not split.problems


@pytest.mark.parametrize(("name", "mark"), [("c.csv", ";"), ("c.csv", "\t"), ("c.TSV", "\t")])
def test_delimiter_and_byte_order_mark_are_detected(shop, name, mark):
    lines = (mark.join(row) for row in (("image", "caption"), ("images/1.jpg", "A coat, red")))
    split = read_catalog(write(shop, *lines, name=name, encoding="utf-8-sig"))["all"]
    assert split.samples[0].captions == ("A coat, red",)


def test_several_caption_columns_are_read(shop):
    table = write(shop, "file,title,text", "1.jpg,Coat,A red coat", "2.jpg,,A blue coat")
    split = read_catalog(
        table, image_column="file", caption_columns=("title", "text"), image_root=shop / "images"
    )["all"]
    assert [sample.captions for sample in split.samples] == [
        ("Coat", "A red coat"),
        ("A blue coat",),
    ]


def test_pids_come_from_the_table(shop):
    table = write(
        shop,
        "image,caption,product,part",
        "images/1.jpg,a,X9,train",
        "images/2.jpg,b,A1,Validation",
        "images/3.jpg,c,X9,test",
    )
    splits = read_catalog(table, pid_column="product", split_column="part")
    assert {name: [s.pid for s in split.samples] for name, split in splits.items()} == {
        "train": ["X9"],
        "val": ["A1"],
        "test": ["X9"],
    }
    assert splits["val"].samples[0].metadata == {"product": "A1"}


@pytest.mark.parametrize(
    ("cells", "pids"),
    [
        (("10", "30", "20"), [10, 30, 20]),
        (("007", "7", "8"), ["007", "7", "8"]),
        (("10", "A7", "10"), ["10", "A7", "10"]),
        (("1.5", "2", "2"), ["1.5", 2, 2]),
        (("true", "false", "true"), ["true", "false", "true"]),
    ],
)
def test_the_type_of_a_pid_follows_its_column(shop, cells, pids):
    rows = [f"images/{n}.jpg,a,{cell}" for n, cell in enumerate(cells, start=1)]
    split = read_catalog(write(shop, "image,caption,sku", *rows), pid_column="sku")["all"]
    assert [sample.pid for sample in split.samples] == pids
    assert split.num_pids == len(set(cells))


def test_invalid_rows_are_problems_with_their_line(shop):
    (shop / "secret.jpg").touch()
    table = shop / "catalog.csv"
    table.write_bytes(
        b"image,caption,price\n"
        b'images/1.jpg,"two\nlines",1\n'  # lines 2 and 3
        b"images/gone.jpg,a coat,2\n"
        b"images/2.jpg,  ,3\n"
        b"images/2.jpg,a coat\n"
        b"images/2.jpg,a, coat,3\n"
        b"images/2.jpg,caf\xe9,3\n"
        b"\n"
        b",a coat,3\n"
        b"images/../../secret.jpg,a coat,3\n"
        b"/images/2.jpg,a coat,3\n"
        b"images/2.jpg,a blue coat,4\n"
    )
    split = read_catalog(table)["all"]
    assert [sample.captions[0] for sample in split.samples] == ["two\nlines", "a blue coat"]
    assert [sample.metadata["price"] for sample in split.samples] == [1, 4]
    where = [problem.where for problem in split.problems]
    assert where == [f"catalog.csv:{line}" for line in (4, 5, 6, 7, 8, 10, 11, 12)]
    why = [problem.why for problem in split.problems]
    assert "'images/gone.jpg' not found under" in why[0]
    assert "they may be cp1252 or" in why[4]
    why[4] = why[4].partition(";")[0]
    assert why[1:6] == [
        "has no caption in 'caption'",
        "has 2 cells, expected 3",
        "has 4 cells, expected 3",
        "holds bytes that are not UTF-8",
        "has no picture in column 'image'",
    ]
    assert all("expected a path relative to" in reason for reason in why[6:])


def test_a_problem_is_kept_with_its_split(shop):
    table = write(
        shop,
        "image,caption,part",
        "images/1.jpg",
        "images/1.jpg,a,train",
        "images/9.jpg,a,test",
        "images/1.jpg,a, ",
    )
    splits = read_catalog(table, split_column="part")
    assert [p.where for p in splits["train"].problems] == ["catalog.csv:2", "catalog.csv:5"]
    assert (len(splits["test"]), splits["test"].problems[0].where) == (0, "catalog.csv:4")


def test_a_blank_pid_is_a_problem(shop):
    table = write(shop, "image,caption,product", "images/1.jpg,a,", "images/2.jpg,a,X")
    (problem,) = read_catalog(table, pid_column="product")["all"].problems
    assert problem.why == "has no pid in column 'product'"


def test_a_too_long_cell_is_a_problem(shop):
    table = write(shop, HEADER, f"images/1.jpg,{'a' * 200_000},1", "images/2.jpg,a,2")
    split = read_catalog(table)["all"]
    assert split.problems[0].where == "catalog.csv:2"
    assert "field larger than field limit" in split.problems[0].why
    assert split.samples[0].metadata["price"] == 2


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("1", "-2"), (1, -2)),
        (("1", "2.5"), (1.0, 2.5)),
        (("1", "x"), ("1", "x")),
        (("01", "2.5"), ("01", "2.5")),
        (("nan", "inf"), ("nan", "inf")),
        (("1e999", "1"), ("1e999", "1")),
        (("1_000", "1"), ("1_000", "1")),
        (("true", "1"), ("true", "1")),
        (("9" * 25, "1"), ("9" * 25, "1")),
        (("1760000000000000001", "2"), (1760000000000000001, 2)),
        (("9223372036854775808", "2"), ("9223372036854775808", "2")),
        (("0.1234567890123456", "2"), ("0.1234567890123456", "2")),
        (("", ""), (None, None)),
        (("NA", "12"), (None, 12)),
        (("NA", "x"), ("NA", "x")),
        (("12E4", "13E7"), ("12E4", "13E7")),
        (("1.5e3", "1e-05"), (1500.0, 1e-05)),
        (("+49170", "1"), ("+49170", "1")),
        (('"1,234,567"', "1"), (1234567.0, 1.0)),
        (('"1,234.5"', "7"), (1234.5, 7.0)),
        (('"1.234,5"', '"7,25"'), (1234.5, 7.25)),
        (("1 234", '"12 345,50"'), (1234.0, 12345.5)),
        (('"1,234"', "7"), ("1,234", "7")),
        (('"1,234.5"', '"1.234,5"'), ("1,234.5", "1.234,5")),
        (('"36,38"', '"40,42"'), ("36,38", "40,42")),
        (('"1,234,56"', "1"), ("1,234,56", "1")),
    ],
)
def test_csv_columns_have_types(shop, cells, values):
    lines = (f"images/{i}.jpg,a,{cell}" for i, cell in enumerate(cells, 1))
    table = write(shop, "image,caption,stock", *lines)
    got = tuple(sample.metadata["stock"] for sample in read_catalog(table)["all"].samples)
    assert got == values
    assert [type(value) for value in got] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("name", "cells", "prices", "currencies", "reported"),
    [
        ("price", ('"₹1,29,999.00"', "12"), (129999.0, 12.0), ("INR", None), []),
        ("Price", ("12 EUR", "ask us"), (12.0, None), ("EUR", None), ["ask us"]),
        ("price", ("10-20", "$12"), (None, 12.0), (None, "$"), ["10-20"]),
        ("price", ("free", "-5 €"), ("free", "-5 €"), (None, None), []),
        ("price", ("N/A", "12.50"), (None, 12.5), (None, None), []),
        ("Price (EUR)", ('"12,50"', "3"), (12.5, 3.0), (None, None), []),
        ("sale", ("£3", "USD 4"), (3.0, 4.0), ("GBP", "USD"), []),
        ("sale", ("£3", "soon"), ("£3", "soon"), (None, None), []),
        ("price band", ("low", "10"), (None, 10.0), (None, None), ["low"]),
    ],
)
def test_prices_become_numbers(shop, name, cells, prices, currencies, reported):
    lines = (f"images/{i}.jpg,a,{cell}" for i, cell in enumerate(cells, 1))
    split = read_catalog(write(shop, f"image,caption,{name}", *lines))["all"]
    assert tuple(sample.metadata[name] for sample in split.samples) == prices
    beside = "currency" if name.lower() == "price" else f"{name}_currency"
    assert tuple(sample.metadata.get(beside) for sample in split.samples) == currencies
    for problem, text in zip(split.problems, reported, strict=True):
        assert problem.where == f"catalog.csv:{2 + cells.index(text)}"
        assert f"is no price: {text!r}" in problem.why


def test_json_lines_are_read(shop):
    rows = [
        {"image": "images/1.jpg", "caption": ["red", "", "coat"], "price": 3, "new": True},
        {"image": "images/2.jpg", "caption": "blue", "tags": ["a", "b"], "price": None},
    ]
    table = write(
        shop,
        json.dumps(rows[0]),
        "{broken",
        "",
        "[1]",
        json.dumps({"image": "images/1.jpg", "caption": 3}),
        json.dumps({"image": "images/1.jpg"}),
        json.dumps(rows[1]),
        "[" * 100_000,
        name="catalog.jsonl",
    )
    split = read_catalog(table)["all"]
    assert [sample.captions for sample in split.samples] == [("red", "coat"), ("blue",)]
    assert split.samples[0].metadata == {"price": 3, "new": True}
    assert split.samples[1].metadata == {"tags": '["a", "b"]', "price": None}
    assert [p.where for p in split.problems] == [f"catalog.jsonl:{n}" for n in (2, 4, 5, 6, 8)]
    why = [problem.why for problem in split.problems]
    assert why[0].startswith("is not JSON")
    assert why[1] == "is not a JSON object but list"
    assert why[2] == "has something else than text in 'caption': 3"
    assert why[3] == "has no column 'caption'"


def test_parquet_is_read(shop):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "image": ["images/1.jpg", "images/9.jpg"],
        "caption": ["red coat", "blue coat"],
        "price": [1.5, float("nan")],
    }
    parquet.write_table(pyarrow.table(columns), shop / "catalog.parquet")
    split = read_catalog(shop / "catalog.parquet")["all"]
    assert split.samples[0].metadata == {"price": 1.5}
    assert split.problems[0].where == "catalog.parquet row 2"


def test_a_broken_parquet_table_is_refused(shop):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="expected a Parquet table"):
        read_catalog(write(shop, "no parquet", name="catalog.parquet"))


def test_the_error_without_pyarrow_names_the_extra(shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"finegrain\[parquet\]"):
        read_catalog(write(shop, "x", name="catalog.parquet"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("file,label", "images/1.jpg,coat"), "found columns file, label; catalog.csv:2: has no"),
        ((HEADER,), "expected rows in .*, found none"),
        ((HEADER, "gone.jpg,a,1"), "'gone.jpg' not found under"),
        (("a" * 200_000,), "expected column names"),
    ],
)
def test_a_table_without_a_valid_row_is_refused(shop, lines, message):
    with pytest.raises(DataError, match=message):
        read_catalog(write(shop, *lines))


def test_files_that_are_not_tables_are_refused(shop):
    with pytest.raises(DataError, match="found none"):
        read_catalog(shop / "catalog.csv")
    with pytest.raises(DataError, match=r"got a binary file \(starts with b'x"):
        read_catalog(write(shop, "x\0", name="catalog.bin"))
    with pytest.raises(DataError, match="list of caption columns, got 'caption'"):
        read_catalog(write(shop, HEADER), caption_columns="caption")


@given(content=st.binary(max_size=200) | st.text('",;\n\r\t\0a1é', max_size=60).map(str.encode))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("name", ["fuzz.csv", "fuzz.jsonl"])
def test_any_bytes_give_samples_or_a_data_error(shop, name, content):
    table = shop / name
    good = HEADER if name == "fuzz.csv" else '{"image": "images/1.jpg", "caption": "a"}'
    table.write_bytes(good.encode() + b"\n" + content)
    try:
        splits = read_catalog(table)
    except DataError:
        return
    assert splits["all"].samples
