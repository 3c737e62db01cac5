"""Values of cells: times, names, pictures, patterns, and columns that a gallery already has."""

from __future__ import annotations

import contextlib
import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from finegrain.data.catalog import read_any_catalog
from finegrain.data.catalog.moments import AmbiguousTimeError, date_order, parse_time
from finegrain.data.catalog.patterns import ImagePattern, NamePattern
from finegrain.data.catalog.pictures import names_in
from finegrain.errors import DataError
from finegrain.records import ProblemKind


@pytest.fixture
def shop(tmp_path):
    """A folder with pictures a.jpg to d.jpg."""
    for number, name in enumerate("abcd"):
        Image.new("RGB", (8, 16), (60 * number, 0, 0)).save(tmp_path / f"{name}.jpg")
    return tmp_path


def read(shop, *lines, name="t.csv", **options):
    path = shop / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"for_search": True, "max_bad_share": 1.0, **options}
    return read_any_catalog(path, **options)["all"]


def images(split):
    return [sample.image.name for sample in split.samples]


# --- times ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "form", "moment"),
    [
        ("2026-05-01", None, "2026-05-01T00:00:00.000Z"),
        ("2026-05-01T08:00+02:00", None, "2026-05-01T06:00:00.000Z"),
        ("2026-05-01 08:00:30", None, "2026-05-01T08:00:30.000Z"),
        ("2026:05:01 08:00:30", None, "2026-05-01T08:00:30.000Z"),
        ("2026/5/1 8:05", None, "2026-05-01T08:05:00.000Z"),
        ("01.05.2026 08:00", None, "2026-05-01T08:00:00.000Z"),
        ("20260501080030", None, "2026-05-01T08:00:30.000Z"),
        ("20260501", None, "2026-05-01T00:00:00.000Z"),
        ("1777622400", None, "2026-05-01T08:00:00.000Z"),
        (1777622400, None, "2026-05-01T08:00:00.000Z"),
        (1777622400000.0, None, "2026-05-01T08:00:00.000Z"),
        ("2026-05-01 10:00:30.5 +0200", None, "2026-05-01T08:00:30.500Z"),
        ("2026-05-01T08:00 UTC", None, "2026-05-01T08:00:00.000Z"),
        ("Fri, 01 May 2026 08:00:00 GMT", None, "2026-05-01T08:00:00.000Z"),
        ("1 May 2026 10:00 +0200", None, "2026-05-01T08:00:00.000Z"),
        ("05/01/2026", "%m/%d/%Y", "2026-05-01T00:00:00.000Z"),
        ("05/31/2026", None, "2026-05-31T00:00:00.000Z"),
        ("31/5/2026 8:05", None, "2026-05-31T08:05:00.000Z"),
        ("5/31/2026 8:05:30 PM", None, "2026-05-31T20:05:30.000Z"),
        ("5/31/2026, 8:05pm", None, "2026-05-31T20:05:00.000Z"),
        ("05-31-2026", None, "2026-05-31T00:00:00.000Z"),
        ("05.31.2026", None, "2026-05-31T00:00:00.000Z"),
        ("05/05/2026", None, "2026-05-05T00:00:00.000Z"),
        ("2026年5月1日", None, "2026-05-01T00:00:00.000Z"),
        ("2026年5月1日 8:05", None, "2026-05-01T08:05:00.000Z"),
        ("2026年05月01日 08时05分30秒", None, "2026-05-01T08:05:30.000Z"),
        ("２０２６年５月１日８時５分", None, "2026-05-01T08:05:00.000Z"),
        ("2026년 5월 1일", None, "2026-05-01T00:00:00.000Z"),
        ("1 May 2026", None, "2026-05-01T00:00:00.000Z"),
        ("May 1, 2026 8:05 PM", None, "2026-05-01T20:05:00.000Z"),
        ("01-May-2026", None, "2026-05-01T00:00:00.000Z"),
        ("1 May 2026, 8 AM", "%d %B %Y, %I %p", "2026-05-01T08:00:00.000Z"),
    ],
)
def test_times_are_read_in_the_formats_of_tables(text, form, moment):
    assert parse_time(text, form) == moment


@pytest.mark.parametrize("text", ["n/a", "31/31/2026", "13/14/2026", "2026年13月1日", "",
                                  "yesterday", "2026-13-01", "31.02.2026",
                                  "31 Feb 2026 08:00", "1 Mai 2026 08:00",
                                  "x" * 10_000, "1e400", "99999999999999999999"])  # fmt: skip
def test_invalid_times_are_refused(text):
    with pytest.raises(DataError, match=r"expected a time as ISO 8601 .*--time-format"):
        parse_time(text)


def test_the_error_of_a_time_names_the_format():
    with pytest.raises(DataError, match=r"expected a time as %d/%m/%Y, got '2026-05-01'"):
        parse_time("2026-05-01", "%d/%m/%Y")


def test_an_ambiguous_date_is_refused_with_both_readings():
    with pytest.raises(AmbiguousTimeError) as caught:
        parse_time("05/01/2026, 8:05 pm")
    for words in ("may be 2026-01-05 or 2026-05-01", "--time-format '%d/%m/%Y, %I:%M %p'",
                  "'%m/%d/%Y, %I:%M %p'"):  # fmt: skip
        assert words in str(caught.value)
    readings = [parse_time("05/01/2026", order=order) for order in ("day", "month")]
    assert [reading[:10] for reading in readings] == ["2026-01-05", "2026-05-01"]


@given(
    st.lists(st.dates(), min_size=1),
    st.sampled_from(["%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d.%m.%Y"]),
)
def test_dates_are_read_in_the_order_that_their_column_shows(days, form):
    texts = [f"{day:{form}}" if day.year > 999 else f"{day:%d/%m}/{day.year:04d}" for day in days]
    if any(day.year <= 999 for day in days):
        return
    order = date_order(texts)
    assert order in (None, "month" if form[1] == "m" else "day")
    for day, text in zip(days, texts, strict=True):
        try:
            assert parse_time(text, order=order) == f"{day}T00:00:00.000Z"
        except AmbiguousTimeError:
            assert all(other.day <= 12 for other in days)


def test_a_day_above_12_decides_the_order_of_its_column(shop):
    split = read(shop, "image,time", "a.jpg,05/01/2026", "b.jpg,05/31/2026", "c.jpg,")
    assert [str(s.metadata.get("time"))[:10] for s in split.samples] == [
        "2026-05-01", "2026-05-31", "None"
    ]  # fmt: skip
    assert not split.problems


@pytest.mark.parametrize("others", [["06/01/2026"], ["13/01/2026", "01/13/2026"]])
def test_a_table_with_ambiguous_dates_is_refused_for_search(shop, others):
    lines = [f"{name}.jpg,{other}" for name, other in zip("bc", others, strict=False)]
    with pytest.raises(DataError, match=r"t\.csv:2: '05/01/2026' may be .* --time-format"):
        read(shop, "image,time", "a.jpg,05/01/2026", *lines)
    split = read(shop, "image,time", "a.jpg,05/01/2026", *lines, time_format="%d/%m/%Y")
    assert split.samples[0].metadata == {"time": "2026-01-05T00:00:00.000Z"}
    trained = read(
        shop, "image,caption,time", "a.jpg,red,05/01/2026", "b.jpg,blue,2026-05-01",
        for_search=False,
    )  # fmt: skip
    assert [s.metadata.get("time") for s in trained.samples] == [None, "2026-05-01T00:00:00.000Z"]
    assert "--time-format" in trained.problems[0].why


@given(st.text(max_size=40) | st.integers() | st.floats())
def test_any_text_is_a_time_or_a_data_error(value):
    with contextlib.suppress(DataError):
        assert parse_time(value).endswith("Z")


def test_a_row_with_an_invalid_time_is_kept_without_it(shop):
    split = read(shop, "image,caption,time", "a.jpg,red,2026-05-01T08:00", "b.jpg,blue,n/a")
    assert [s.metadata.get("time") for s in split.samples] == ["2026-05-01T08:00:00.000Z", None]
    (problem,) = split.problems
    assert (problem.where, problem.kind) == ("t.csv:3", ProblemKind.VALUE)
    assert problem.why.endswith("kept without a time")


def test_columns_of_camera_and_time_may_have_any_name(shop):
    split = read(
        shop, "image,Cam No,taken", "a.jpg,03,01/05/2026",
        camera_column="cam no", time_column="taken", time_format="%d/%m/%Y",
    )  # fmt: skip
    (sample,) = split.samples
    assert (sample.camera, sample.captions) == ("03", ())
    assert sample.metadata == {"time": "2026-05-01T00:00:00.000Z"}


# --- names and numbers ------------------------------------------------------------------


def test_cameras_and_tracks_are_names(shop):
    (sample,) = read(shop, "image,camera,track", "a.jpg,3,007").samples
    assert (sample.camera, sample.metadata) == ("3", {"track": "007"})
    rows = json.dumps([{"image": "a.jpg", "camera": 3}, {"image": "b.jpg", "camera": 4.0}])
    assert [s.camera for s in read(shop, rows, name="t.json").samples] == ["3", "4"]


def test_columns_with_built_in_names_are_renamed(shop):
    split = read(shop, "id,image,caption,added_at", "77,a.jpg,red,today")
    assert split.samples[0].metadata == {"id_": 77, "added_at_": "today"}
    assert any("'id' is kept as 'id_'" in note for note in split.notes)


def test_a_pid_column_is_used_unchanged(shop):
    split = read(shop, "image,pid", "a.jpg,0002", "b.jpg,-1", "c.jpg,")
    assert [s.pid for s in split.samples] == ["0002", "-1", None]
    assert all("pid" not in s.metadata for s in split.samples)


def test_whole_numbers_of_more_than_64_bits_are_text(shop):
    rows = ['{"image": "a.jpg", "sku": 99999999999999999999}', '{"image": "b.jpg", "sku": 5}',
            '{"image": "c.jpg"}']  # fmt: skip
    samples = read(shop, *rows, name="t.jsonl").samples
    assert [s.metadata.get("sku") for s in samples] == ["99999999999999999999", "5", None]


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=5))
def test_numbers_of_a_table_keep_all_digits(numbers):
    from finegrain.data.catalog.values import of_one_type

    rows = of_one_type([{"n": str(number)} for number in numbers], is_text=True)
    assert [int(row["n"]) for row in rows] == numbers
    assert len({type(row["n"]) for row in rows}) == 1


# --- several pictures in a cell ---------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    ["a.jpg|b.jpg", "a.jpg;b.jpg", "a.jpg, b.jpg", "a.jpg b.jpg", "a.jpg\nb.jpg",
     '["a.jpg", "b.jpg"]', "['a.jpg', 'b.jpg']",
     "https://s.x/u/a.jpg, https://s.x/u/b.jpg?v=2", "https://s.x/a.jpg|https://s.x/b.jpg",
     "https://s.x/a.jpg https://s.x/b.jpg"],
)  # fmt: skip
def test_both_pictures_of_a_cell_show_one_product(shop, cell):
    quoted = '"' + cell.replace('"', '""') + '"'
    split = read(shop, "image,caption", f"{quoted},red coat", "c.jpg,blue coat", images_root=shop)
    assert images(split) == ["a.jpg", "b.jpg", "c.jpg"]
    first, second, third = split.samples
    assert first.pid == second.pid is not None
    assert third.pid is None
    assert not split.problems


def test_a_json_list_of_pictures_may_have_a_missing_one(shop):
    rows = [{"image": ["a.jpg", "gone.jpg", "b.jpg"], "sku": "X"}, {"image": []}]
    split = read(shop, json.dumps(rows), name="t.json", pid_column="sku")
    assert [(s.image.name, s.pid) for s in split.samples] == [("a.jpg", "X"), ("b.jpg", "X")]
    kinds = [problem.kind for problem in split.problems]
    assert kinds == [ProblemKind.MISSING, ProblemKind.ROW]


def test_a_picture_that_needs_an_extra_is_left_out(shop, monkeypatch):
    (shop / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    split = read(shop, "image", "a.jpg", "b.jpg")
    assert images(split) == ["b.jpg"]
    (problem,) = split.problems
    assert problem.kind is ProblemKind.PICTURE
    assert "finegrain[heic]" in problem.why


def test_a_name_with_commas_is_one_picture(shop):
    (shop / "a.jpg").rename(shop / "a.jpg, b.jpg")
    assert images(read(shop, "image", '"a.jpg, b.jpg"')) == ["a.jpg, b.jpg"]


@given(st.text(max_size=60))
def test_any_cell_has_at_least_one_name(cell):
    assert names_in(cell)


def test_products_that_share_a_picture_are_reported(shop):
    rows = ("image,caption,sku", "a.jpg,red coat,1", "a.jpg,coat,2", "b.jpg,blue,3")
    split = read(shop, *rows, pid_column="sku")
    assert images(split) == ["a.jpg", "b.jpg"]
    (problem,) = split.problems
    assert problem.kind is ProblemKind.REPEATED
    assert "t.csv:2 shows already" in problem.why
    assert images(read(shop, *rows, pid_column="sku", for_search=False)) == [
        "a.jpg", "a.jpg", "b.jpg",
    ]  # fmt: skip


# --- names of files ---------------------------------------------------------------------


@pytest.mark.parametrize("of_file", ["NFC", "NFD"])
@pytest.mark.parametrize("of_table", ["NFC", "NFD"])
def test_unicode_forms_of_names_match(shop, of_file, of_table):
    folder = shop / unicodedata.normalize(of_file, "Großé")
    folder.mkdir()
    (shop / "a.jpg").rename(folder / unicodedata.normalize(of_file, "café.jpg"))
    split = read(shop, "image", unicodedata.normalize(of_table, "Großé/café.jpg"))
    assert len(split.samples) == 1
    assert split.samples[0].image.is_file()


def test_a_name_in_another_case_is_suggested(shop):
    with pytest.raises(DataError, match=r"there is 'a\.jpg', which a table has to name in the"):
        read(shop, "image", "A.JPG")


@pytest.mark.parametrize(
    ("url", "saved"),
    [
        ("https://c.d/a.jpg?v=1690", "a.jpg?v=1690"),
        ("https://c.d/a.jpg?v=1690", "a.jpg@v=1690"),
        ("https://c.d/a.jpg?v=1690", "a.jpg"),
        ("https://c.d/f/a.jpg", "c.d/f/a.jpg"),
        ("https://c.d/f/a.jpg", "f/a.jpg"),
        ("https://c.d/a%20b.jpg", "a b.jpg"),
        ("https://c.d/a%20b.jpg", "a%20b.jpg"),
        ("https://c.d/get?file=x/a.jpg", "get?file=x%2Fa.jpg"),
    ],
)
def test_names_of_downloads_match(shop, url, saved):
    target = shop / "downloads" / saved
    target.parent.mkdir(parents=True)
    (shop / "a.jpg").rename(target)
    split = read(shop, "image", url, images_root=shop / "downloads")
    assert [s.image for s in split.samples] == [target]


# --- patterns ---------------------------------------------------------------------------


def test_a_pattern_gives_the_picture_of_a_row(shop):
    (shop / "images" / "007").mkdir(parents=True)
    (shop / "a.jpg").rename(shop / "images" / "007" / "0071.jpg")
    split = read(shop, "id,name", "0071,Coat", "0072,Hat", ",Shoe",
                 image_pattern="images/{id[:3]}/{id}.jpg")  # fmt: skip
    assert images(split) == ["0071.jpg"]
    assert [problem.where for problem in split.problems] == ["t.csv:3", "t.csv:4"]
    assert split.problems[1].why == "has nothing in column 'id', which names its picture"


@pytest.mark.parametrize("pattern", ["images/", "{", "a{}b", "{id}{", "{id[0]}.jpg"])
def test_invalid_image_patterns_are_refused(pattern):
    with pytest.raises(DataError, match="expected a pattern with columns in braces"):
        ImagePattern(pattern)


def test_a_pattern_cannot_leave_the_folder(shop):
    with pytest.raises(DataError, match="expected a path relative to"):
        read(shop, "id", "../../etc/passwd", image_pattern="images/{id}")


MARKET = "{pid}_c{camera}s{seq}_{frame}"


@pytest.mark.parametrize(
    ("pattern", "name", "columns"),
    [
        (MARKET, "0002_c1s1_000451_03",
         {"pid": "0002", "camera": "1", "seq": "1", "frame": "000451_03"}),
        (MARKET, "-1_c3s2_1_0", {"pid": "-1", "camera": "3", "seq": "2", "frame": "1_0"}),
        ("{pid}_c{camera}_f{frame}", "0005_c2_f0046985",
         {"pid": "0005", "camera": "2", "frame": "0046985"}),
        ("{pid}/{camera}_{frame}", "root/17/3_99", {"pid": "17", "camera": "3", "frame": "99"}),
    ],
)  # fmt: skip
def test_a_name_pattern_reads_columns(pattern, name, columns):
    assert NamePattern(pattern).columns_of(name) == columns


@pytest.mark.parametrize("name", ["0002", "_c1s1_x", "0002_c1s1_", "", "a_" * 100_000])
def test_names_of_another_form_are_problems(name):
    with pytest.raises(DataError, match="does not have the form"):
        NamePattern(MARKET).columns_of(name)


@pytest.mark.parametrize("pattern", ["pid", "{pid}{camera}", "{a}_{a}", "{a", "{}_{b}", ""])
def test_invalid_name_patterns_are_refused(pattern):
    with pytest.raises(DataError, match="expected a pattern with different columns"):
        NamePattern(pattern)


@given(st.lists(st.text("abc1", min_size=1, max_size=4), min_size=3, max_size=3))
def test_a_name_pattern_reads_back_the_parts_of_a_name(parts):
    columns = NamePattern("{x}_{y}-{z}").columns_of(f"{parts[0]}_{parts[1]}-{parts[2]}")
    assert list(columns.values()) == parts


# --- columns that were named ------------------------------------------------------------


def test_a_wrong_column_gets_a_suggestion(shop):
    with pytest.raises(DataError, match="Did you mean 'product_id'"):
        read(shop, "image,caption,product_id", "a.jpg,red,1", pid_column="produkt_id")


@pytest.mark.parametrize("option", ["camera_column", "time_column"])
def test_a_wrong_column_of_cameras_or_times_is_refused(shop, option):
    with pytest.raises(DataError, match=r"expected a column 'gates' .* Did you mean 'gate'"):
        read(shop, "image,gate", "a.jpg,north", **{option: "gates"})


def test_objects_may_have_different_fields(shop):
    rows = [{"image": "a.jpg", "camera": 1, "time": "2026-05-01", "caption": "red", "pid": 7},
            {"image": "b.jpg"}]  # fmt: skip
    split = read(shop, json.dumps(rows), name="t.json")
    assert [(s.image.name, s.camera, s.pid, s.captions) for s in split.samples] == [
        ("a.jpg", "1", 7, ("red",)), ("b.jpg", None, None, ()),
    ]  # fmt: skip
    assert not split.problems


def test_names_of_columns_match_in_any_case_and_with_spaces(shop):
    split = read(
        shop, "Image Path,Caption Text,SKU", "a.jpg,red,1",
        image_column="image_path", caption_columns=("caption text",), pid_column="sku",
    )  # fmt: skip
    assert (split.samples[0].captions, split.samples[0].pid) == (("red",), 1)


def test_a_row_without_a_caption_is_kept_unless_captions_were_named(shop):
    rows = ("image,caption", "a.jpg,red", "b.jpg,")
    assert images(read(shop, *rows)) == ["a.jpg", "b.jpg"]
    assert images(read(shop, *rows, caption_columns=("caption",))) == ["a.jpg"]
    assert images(read(shop, *rows, for_search=False)) == ["a.jpg"]
