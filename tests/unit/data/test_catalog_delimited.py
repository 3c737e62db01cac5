"""Delimited text: tables of every dialect are read exactly, and every invalid row is named."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.data.catalog.delimited import read_delimited
from finegrain.data.catalog.row import FIND_OUT, TextFormat
from finegrain.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
WIDE = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def table(tmp_path, content: str | bytes, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path, text=FIND_OUT):
    opened = read_delimited(path, text)
    rows = list(opened.rows)
    good = [tuple(row.cells.values()) for row in rows if row.why is None]
    bad = {row.where: row.why for row in rows if row.why is not None}
    return opened, good, bad


def written(rows, separator, end="\r\n", quoting=csv.QUOTE_MINIMAL) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)
    return stream.getvalue()


# Cells have letters of many scripts, characters that dialects use, and line ends inside quotes. A
# table with an apostrophe at both ends of its cells is read as a table with single quotes.
LETTERS = st.sampled_from('abcXYZ019 ,;|\t"\n#é')
ROWS = st.lists(st.tuples(st.text(LETTERS, max_size=12), st.text(LETTERS, max_size=12)), max_size=8)


@given(
    rows=ROWS,
    separator=st.sampled_from(SEPARATORS),
    end=st.sampled_from(["\r\n", "\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"]),
    says=st.booleans(),
)
@WIDE
def test_a_table_of_any_dialect_is_read_exactly(
    tmp_path, rows, separator, end, quoting, encoding, says
):
    rows = [row for row in rows if any(map(str.strip, row))]
    content = written([("image", "caption"), *rows], separator, end, quoting)
    if says:
        content = f"sep={separator}{end}{content}"
    path = table(tmp_path, content.encode(encoding))
    opened, good, bad = read(path, TextFormat(encoding=encoding, separator=separator))
    assert opened.columns == ("image", "caption")
    assert (good, bad) == (rows, {})


@given(
    captions=st.lists(st.text(st.sampled_from("red coat,;é"), min_size=1, max_size=20), min_size=2),
    separator=st.sampled_from(SEPARATORS),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
)
@WIDE
def test_separator_and_unicode_encodings_are_detected(tmp_path, captions, separator, encoding):
    rows = [(f"{n}.jpg", caption, str(n)) for n, caption in enumerate(captions)]
    content = written([("image", "caption", "price"), *rows], separator)
    opened, good, bad = read(table(tmp_path, content.encode(encoding)))
    assert opened.columns == ("image", "caption", "price")
    assert (good, bad) == (rows, {})


BAD_ROWS = ('x.jpg,"never closed', 'x.jpg,"closed" badly', "x.jpg", "x.jpg,a,b", 'x.jpg,"""')


@given(
    good=st.lists(st.text(st.sampled_from('abc é",'), min_size=1, max_size=9), min_size=1),
    bad=st.lists(st.sampled_from(BAD_ROWS), max_size=4),
    order=st.randoms(use_true_random=False),
)
@WIDE
def test_invalid_rows_are_reported_and_do_not_change_valid_ones(tmp_path, good, bad, order):
    good_rows = [(f"{n}.jpg", caption) for n, caption in enumerate(good)]
    lines = [(written([row], ",", "\n"), row) for row in good_rows]
    lines += [(f"{row}\n", None) for row in bad]
    order.shuffle(lines)
    content = "image,caption\n" + "".join(line for line, _ in lines)
    _, read_rows, reported = read(table(tmp_path, content))
    assert read_rows == [row for _, row in lines if row is not None]
    assert set(reported) == {
        f"t.csv:{number}" for number, (_, row) in enumerate(lines, start=2) if row is None
    }


@pytest.mark.parametrize(
    ("lines", "good", "bad"),
    [
        (['a.jpg,"red coat', "b.jpg,blue coat", "c.jpg,green coat"], "bc", [2]),
        (["a.jpg,red coat", 'b.jpg,"blue coat', 'c.jpg,"green coat"'], "ac", [3]),
        (['a.jpg,"red coat', 'b.jpg,"', "c.jpg,green"], "c", [2, 3]),
        (['a.jpg,"red coat', 'b.jpg,blue "warm"', "c.jpg,green"], "bc", [2]),
        (['"a.jpg,red coat', '"b.jpg",blue', "c.jpg,green"], "bc", [2]),
        (["a.jpg,red", "b.jpg,blue", 'c.jpg,"green coat'], "ab", [4]),
    ],
)
def test_a_missing_quote_invalidates_only_its_row(tmp_path, lines, good, bad):
    _, rows, reported = read(table(tmp_path, "\n".join(["image,caption", *lines]) + "\n"))
    assert [row[0][0] for row in rows] == list(good)
    assert list(reported) == [f"t.csv:{line}" for line in bad]
    assert all("quote" in why for why in reported.values())


def test_a_cell_may_have_several_lines(tmp_path):
    content = 'image,caption\na.jpg,"red coat\nwith buttons, and\na belt"\nb.jpg,blue\n'
    _, rows, bad = read(table(tmp_path, content))
    assert rows == [("a.jpg", "red coat\nwith buttons, and\na belt"), ("b.jpg", "blue")]
    assert not bad


def test_line_numbers_include_lines_inside_cells(tmp_path):
    _, _, bad = read(table(tmp_path, 'image,caption\n\na.jpg,"x\ny\nz"\nb.jpg\n'))
    assert list(bad) == ["t.csv:6"]


@pytest.mark.parametrize(
    ("header", "row", "columns"),
    [
        ("image,caption,,", "a.jpg,red,,", ("image", "caption")),
        ("image,caption", "a.jpg,red,,", ("image", "caption")),
        (" image , Base Colour ", "a.jpg,red", ("image", "Base Colour")),
        (",image,caption", "0,a.jpg,red", ("column_1", "image", "caption")),
        ("image,tag,tag", "a.jpg,x,y", ("image", "tag", "tag_2")),
        ("image,tag,tag_2,tag", "a.jpg,x,y,z", ("image", "tag", "tag_2", "tag_3")),
    ],
)
def test_names_in_headers_are_cleaned(tmp_path, header, row, columns):
    opened, rows, bad = read(table(tmp_path, f"{header}\n{row}\n"))
    assert opened.columns == columns
    assert len(rows) == 1
    assert not bad


def test_a_repeated_name_is_reported(tmp_path):
    opened, _, _ = read(table(tmp_path, "image,tag,tag\na.jpg,x,y\n"))
    assert opened.notes == ["the name 'tag' comes again in column 3, read as 'tag_2'"]


def test_a_guessed_encoding_is_reported(tmp_path):
    opened, _, _ = read(table(tmp_path, "image\tcaption\na.jpg\tred\n".encode("utf-16")))
    assert opened.notes == ["the cells are separated by tabs", "the text is in utf-16"]
    opened, _, _ = read(table(tmp_path, "image\tcaption\na.jpg\tred\n", name="t.tsv"))
    assert opened.notes == []


def test_the_given_encoding_applies_to_the_whole_file(tmp_path):
    content = "image,caption,品牌\na.jpg,红色大衣,李宁\nb.jpg,模,茅\n".encode("gbk")
    for text in (TextFormat(encoding="gbk"), TextFormat(fallback_encoding="gbk")):
        opened, rows, bad = read(table(tmp_path, content), text)
        assert opened.columns == ("image", "caption", "品牌")
        assert rows == [("a.jpg", "红色大衣", "李宁"), ("b.jpg", "模", "茅")]
        assert not bad


def test_a_fallback_encoding_does_not_affect_a_utf_8_file(tmp_path):
    content = "image,caption\na.jpg,café\n"
    _, rows, _ = read(table(tmp_path, content), TextFormat(fallback_encoding="cp1251"))
    assert rows == [("a.jpg", "café")]


def test_a_header_in_an_unknown_encoding_is_an_error_with_advice(tmp_path):
    path = table(tmp_path, "image,caption,品牌名称\na.jpg,红色大衣,李宁运动\n".encode("gbk"))
    with pytest.raises(
        DataError,
        match=r"line 1 of .*not UTF-8.*State the encoding.*--encoding.*--set data.encoding=",
    ):
        read(path)


def test_bytes_outside_the_given_encoding_invalidate_their_row(tmp_path):
    _, rows, bad = read(
        table(tmp_path, b"image,caption\na.jpg,\x81\nb.jpg,caf\xe9\n"),
        TextFormat(encoding="cp1252"),
    )
    assert rows == [("b.jpg", "café")]
    assert bad == {"t.csv:2": "holds bytes that are not CP1252"}


def test_truncated_utf_16_gives_its_complete_rows(tmp_path):
    content = "image,caption\na.jpg,red\nb.jpg,blue".encode("utf-16")[:-1]
    _, rows, bad = read(table(tmp_path, content))
    assert rows[0] == ("a.jpg", "red")
    assert any("from here on, so the rest is not read" in why for why in bad.values())


@pytest.mark.parametrize("name", ["no-such", "base64", "rot13", ""])
def test_an_unknown_encoding_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="expected the name of an encoding"):
        read(table(tmp_path, "image\n"), TextFormat(encoding=name))


@pytest.mark.parametrize("separator", ["", ",,", '"', "\n"])
def test_an_invalid_separator_is_refused(tmp_path, separator):
    with pytest.raises(DataError, match="expected one character as the separator"):
        read(table(tmp_path, "image\n"), TextFormat(separator=separator))


def test_a_too_long_line_is_left_out(tmp_path):
    content = f"image,caption\na.jpg,{'x' * (3 << 20)}\nb.jpg,blue\n"
    _, rows, bad = read(table(tmp_path, content))
    assert rows == [("b.jpg", "blue")]
    assert "longer than 1,048,576 characters" in bad["t.csv:2"]


def test_unclosed_quotes_take_linear_work(tmp_path):
    """Each unclosed cell continues to the end of the file, and could be read again for each
    line."""
    content = "a,b\n" + 'x","\n' * 200_000
    with pytest.raises(DataError, match="too many rows have quotes that do not match"):
        read(table(tmp_path, content))


@given(content=st.binary(max_size=300))
@WIDE
def test_any_bytes_give_rows_or_a_data_error(tmp_path, content):
    try:
        _, _, bad = read(table(tmp_path, b"image,caption\n" + content))
    except DataError:
        return
    assert all(where.startswith("t.csv:") for where in bad)
