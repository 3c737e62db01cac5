"""`finegrain index` on typical inputs of users, through the command line."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from finegrain.cli.parser import main

COLORS = {"a": "red", "b": "blue", "c": "green", "d": "black"}


@pytest.fixture
def shop(plan, monkeypatch):
    """The plan's folder with a.jpg to d.jpg, which is the working directory."""
    monkeypatch.chdir(plan.parent)
    for name, color in COLORS.items():
        Image.new("RGB", (64, 128), color).save(f"{name}.jpg")
    return plan.parent


def write(name: str, *lines: str, encoding="utf-8") -> str:
    Path(name).write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return name


def index(*arguments: str) -> int:
    return main(["index", "model.plan", *arguments])


def hits(capsys, *arguments: str) -> list[dict]:
    capsys.readouterr()
    assert main(["query", "model.plan", "coat", "--json", *arguments]) == 0
    return sorted(json.loads(capsys.readouterr().out), key=lambda match: match["image"])


def names(matches) -> list[str]:
    return [Path(match["image"]).name for match in matches]


def test_an_unclosed_quote_is_named_with_its_line(shop, capsys):
    table = write("t.csv", "image,caption", 'a.jpg,"red coat', "b.jpg,blue coat", "c.jpg,green")
    assert index(table) == 1
    assert "t.csv:2: has a quote that is never closed" in capsys.readouterr().err
    assert index(table, "--max-bad-share", "0.5") == 0
    matches = hits(capsys)
    assert names(matches) == ["b.jpg", "c.jpg"]
    assert matches[0]["metadata"]["caption"] == "blue coat"


def test_a_cell_with_two_addresses_is_one_product(shop, capsys):
    write("t.csv", "image,caption", '"https://s.x/up/a.jpg, https://s.x/up/b.jpg",red coat')
    assert index("t.csv", "--images-root", ".") == 0
    matches = hits(capsys)
    assert names(matches) == ["a.jpg", "b.jpg"]
    assert len({match["pid"] for match in matches}) == 1
    assert len(hits(capsys, "--group-by", "pid")) == 1


def test_ids_of_19_digits_are_kept_exactly(shop, capsys):
    ids = (1760000000000000001, 1760000000000000002)
    write("t.csv", "image,caption,tweet", f"a.jpg,red coat,{ids[0]}", f"b.jpg,blue coat,{ids[1]}")
    assert index("t.csv") == 0
    for number, name in zip(ids, ("a.jpg", "b.jpg"), strict=True):
        assert names(hits(capsys, "--where", f"tweet = {number}")) == [name]


def test_a_table_in_a_folder_does_not_hide_pictures(shop, capsys):
    Path("crops/old").mkdir(parents=True)
    for name in "abc":
        shutil.move(f"{name}.jpg", "crops")
    shutil.move("d.jpg", "crops/old")
    write("crops/old/metadata.csv", "file_name,text", "d.jpg,black coat")
    assert index("crops") == 0
    matches = hits(capsys)
    assert names(matches) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert matches[3]["metadata"]["caption"] == "black coat"


def test_all_kinds_of_picture_files_are_indexed(shop, capsys):
    Path("crops").mkdir()
    for name, new in (("a", "a.jpg"), ("b", "b.jfif"), ("c", "IMG_1.HEIC"), ("d", "d.jpg?v=1")):
        shutil.move(f"{name}.jpg", f"crops/{new}")
    write("crops/notes.md", "hello")
    assert index("crops") == 0
    shown = capsys.readouterr()
    assert "notes.md" in shown.out + shown.err
    assert len(hits(capsys)) == 4


def test_a_linked_folder_is_followed(shop, capsys):
    Path("nas").mkdir()
    Path("crops").mkdir()
    shutil.move("a.jpg", "nas")
    shutil.move("b.jpg", "crops")
    Path("crops/gate-1").symlink_to("../nas")
    assert index("crops") == 0
    assert names(hits(capsys)) == ["b.jpg", "a.jpg"]


def test_excluded_files_are_named(shop, capsys):
    assert index(".", "--exclude", "[ab].jpg", "--exclude", "model.*") == 0
    assert "a.jpg: is excluded" in capsys.readouterr().out
    assert names(hits(capsys)) == ["c.jpg", "d.jpg"]


@pytest.mark.parametrize("how", ["table", "metadata"])
def test_a_numeric_camera_is_a_name(shop, capsys, how):
    if how == "table":
        assert index(write("t.csv", "image,caption,camera", "a.jpg,red coat,3")) == 0
    else:
        assert index("a.jpg", "--metadata", "camera=3") == 0
    assert [match["camera"] for match in hits(capsys, "--where", "camera = '3'")] == ["3"]


def test_a_column_called_id_is_metadata(shop, capsys):
    assert index(write("t.csv", "id,image,caption", "77,a.jpg,red coat")) == 0
    assert "'id' is kept as 'id_'" in capsys.readouterr().err
    assert names(hits(capsys, "--where", "id_ = 77")) == ["a.jpg"]


def test_an_invalid_time_drops_only_the_time(shop, capsys):
    rows = ("a.jpg,red coat,2026-05-01T08:00", "b.jpg,blue coat,n/a")
    assert index(write("t.csv", "image,caption,time", *rows)) == 0
    shown = capsys.readouterr()
    assert "t.csv:3: expected a time" in shown.out + shown.err
    assert [match["time"] for match in hits(capsys)] == ["2026-05-01T08:00:00.000Z", None]


def test_a_number_of_more_than_64_bits_is_text(shop, capsys):
    write("t.jsonl", '{"image":"a.jpg","caption":"red coat","sku":99999999999999999999}',
          '{"image":"b.jpg","caption":"blue coat"}')  # fmt: skip
    assert index("t.jsonl") == 0
    assert names(hits(capsys, "--where", "sku = '99999999999999999999'")) == ["a.jpg"]
    assert len(hits(capsys)) == 2


@pytest.mark.parametrize("option", ["--encoding", "--fallback-encoding"])
def test_the_given_encoding_applies_to_the_header(shop, capsys, option):
    write("t.csv", "image,caption,品牌", "a.jpg,红色大衣,李宁", encoding="gbk")
    assert index("t.csv") == 1
    assert "State the encoding of the file" in capsys.readouterr().err
    assert index("t.csv", option, "gbk") == 0
    (match,) = hits(capsys)
    assert match["metadata"] == {"caption": "红色大衣", "品牌": "李宁"}


def test_a_shopify_export_in_cp1251_is_indexed(shop, capsys):
    write("s.csv", "Handle,Title,Variant Price,Image Src",
          "k,Красное пальто,12.00,https://c.d/a.jpg", encoding="cp1251")  # fmt: skip
    assert index("s.csv", "--images-root", ".", "--fallback-encoding", "cp1251") == 0
    (match,) = hits(capsys)
    assert match["metadata"]["caption"] == "Красное пальто"
    assert (match["pid"], match["metadata"]["price"]) == ("k", 12.0)


def test_the_format_of_a_feed_follows_its_content(shop, capsys):
    write("feed.txt", "id\ttitle\timage_link\tprice", "1\tRed coat\thttps://x.y/a.jpg\t12 EUR")
    assert index("feed.txt", "--images-root", ".") == 0
    write("t.json", '[{"image":"b.jpg","caption":"x"}]')
    assert index("t.json") == 0
    assert names(hits(capsys)) == ["a.jpg", "b.jpg"]
    write("cam.dav", "DHAV")
    assert index("cam.dav") == 1
    assert "ffmpeg -i cam.dav" in capsys.readouterr().err


def test_a_table_without_captions_is_indexed(shop, capsys):
    assert index(write("t.csv", "image,camera,time", "a.jpg,gate-1,2026-05-01T08:00")) == 0
    (match,) = hits(capsys)
    assert (match["camera"], match["time"]) == ("gate-1", "2026-05-01T08:00:00.000Z")
    assert match["metadata"] == {}


def test_tables_written_by_excel_are_indexed(shop, capsys):
    assert index(write("t.csv", "sep=;", "image;caption", "a.jpg;red coat")) == 0
    assert index(write("u.csv", "image,caption,,", "b.jpg,red coat,,")) == 0
    assert index(write("v.csv", "image\tcaption", "c.jpg\tred coat", encoding="utf-16")) == 0
    assert index(write("w.csv", "image|caption", "d.jpg|red coat")) == 0
    assert [match["metadata"] for match in hits(capsys)] == [{"caption": "red coat"}] * 4


def test_a_shard_made_on_a_mac_is_indexed(shop, capsys):
    with tarfile.open("s.tar", "w") as archive:
        for name, data in (("._a.jpg", b"x"), ("a.jpg", Path("a.jpg").read_bytes()),
                           ("._a.txt", b"x"), ("a.txt", b"red coat")):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert index("s.tar") == 0
    (match,) = hits(capsys)
    assert match["metadata"]["caption"] == "red coat"


def test_prices_are_read_in_all_formats(shop, capsys):
    prices = {"a": "12 EUR", "b": "₹1,29,999.00", "c": "Rs. 1,299", "d": "ask us"}
    rows = (f"{n}\t{n}\thttps://x.y/{n}.jpg\t{price}" for n, price in prices.items())
    write("t.tsv", "id\ttitle\timage_link\tprice", *rows)
    assert index("t.tsv", "--images-root", ".") == 0
    shown = capsys.readouterr()
    assert "t.tsv:5: expected a price" in shown.out + shown.err
    read = [match["metadata"].get("price") for match in hits(capsys)]
    assert read == [12.0, 129_999.0, 1299.0, None]


def test_file_names_written_by_wget_are_matched(shop, capsys):
    Path("dl").mkdir()
    shutil.move("a.jpg", "dl/a.jpg?v=1690")
    write("s.csv", "Handle,Title,Image Src,Variant Price", "r,Red,https://c.d/a.jpg?v=1690,12")
    assert index("s.csv", "--images-root", "dl") == 0
    assert names(hits(capsys)) == ["a.jpg?v=1690"]


def test_pids_and_cameras_are_read_from_market_1501_file_names(shop, capsys):
    Path("market").mkdir()
    shutil.move("a.jpg", "market/0002_c1s1_000451_03.jpg")
    shutil.move("b.jpg", "market/0002_c3s1_000551_00.jpg")
    assert index("market", "--name-pattern", "{pid}_c{camera}s{seq}_{frame}") == 0
    assert len(hits(capsys, "--where", "pid = '0002'")) == 2
    assert [match["camera"] for match in hits(capsys, "--where", "camera = '3'")] == ["3"]


def test_an_image_pattern_and_columns_of_camera_and_time_are_used(shop, capsys):
    Path("images").mkdir()
    shutil.move("a.jpg", "images/a.jpg")
    write("t.csv", "id;gate;seen", "a;north;01/05/2026 08:00")
    assert index("t.csv", "--image-pattern", "images/{id}.jpg", "--camera-column", "gate",
                 "--time-column", "seen", "--time-format", "%d/%m/%Y %H:%M") == 0  # fmt: skip
    (match,) = hits(capsys)
    assert (match["camera"], match["time"]) == ("north", "2026-05-01T08:00:00.000Z")


def test_a_tab_separator_is_detected(shop, capsys):
    write("t.txt", "image\tcaption", "a.jpg\tred; or, blue")
    assert index("t.txt", "--separator", "tab") == 0
    assert hits(capsys)[0]["metadata"]["caption"] == "red; or, blue"


def test_a_column_with_a_space_is_filtered_by_its_quoted_name(shop, capsys):
    assert index(write("t.csv", "image,caption,Base Colour", "a.jpg,red coat,Navy")) == 0
    assert names(hits(capsys, "--where", "\"Base Colour\" = 'Navy'")) == ["a.jpg"]
    for where in ("Base Colour = 'Navy'", "base_colour = 'Navy'"):
        assert main(["query", "model.plan", "coat", "--where", where]) == 1
        assert '"Base Colour"' in capsys.readouterr().err


def test_k_may_exceed_the_number_of_pictures(shop, capsys):
    assert index("a.jpg", "b.jpg") == 0
    assert len(hits(capsys, "-k", "10")) == 2


def test_a_path_as_the_query_searches_by_picture(shop, capsys):
    assert index("a.jpg", "b.jpg") == 0
    capsys.readouterr()
    assert main(["query", "model.plan", "a.jpg", "--json", "-k", "1"]) == 0
    shown = capsys.readouterr()
    assert "a.jpg is a file, so it is searched for as a picture" in shown.err
    assert names(json.loads(shown.out)) == ["a.jpg"]


def test_truncated_words_are_reported(shop, capsys):
    assert index("a.jpg") == 0
    capsys.readouterr()
    assert main(["query", "model.plan", "a person " * 60 + "in a red coat"]) == 0
    assert "words were not read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("separator", "name"), [("~", "tildes"), ("^", "carets"), ("\x01", "U+0001"), (":", "colons")]
)
def test_rare_separators_are_detected(shop, capsys, separator, name):
    rows = ("image,caption,price", "a.jpg,red coat,1", "b.jpg,blue coat,2")
    assert index(write("t.csv", *(row.replace(",", separator) for row in rows))) == 0
    assert name in capsys.readouterr().err
    assert [match["metadata"]["price"] for match in hits(capsys)] == [1, 2]


def test_pictures_given_one_by_one_are_encoded_together(shop, capsys):
    assert index("a.jpg", "b.jpg", "c.jpg") == 0
    assert "added 3 pictures" in capsys.readouterr().out


def test_a_name_pattern_is_used_for_pictures_given_one_by_one(shop, capsys):
    shutil.move("a.jpg", "0002_c1s1_000451_03.jpg")
    pattern = "{pid}_c{camera}s{seq}_{frame}"
    assert index("0002_c1s1_000451_03.jpg", "b.jpg", "--name-pattern", pattern) == 3
    assert "b.jpg: its name does not have the form" in capsys.readouterr().out
    (match,) = hits(capsys, "--where", "camera = '1'")
    assert match["pid"] == "0002"


def test_a_missing_extra_does_not_stop_other_inputs(shop, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    Path("t.xlsx").write_bytes(b"PK\x03\x04")
    assert index("t.xlsx", "a.jpg") == 3
    shown = capsys.readouterr()
    assert "1 unreadable input" in shown.out
    assert "finegrain[xlsx]" in shown.err
    assert names(hits(capsys)) == ["a.jpg"]
    assert index("t.xlsx") == 1


def test_a_table_without_a_valid_row_is_a_failure(shop, capsys):
    table = write("t.csv", "image,caption", "no.jpg,red", "none.jpg,blue")
    assert index(table, "--max-bad-share", "1") == 1
    assert "'no.jpg' not found" in capsys.readouterr().err


def test_an_infinite_number_is_reported(shop, capsys):
    assert index(write("t.jsonl", '{"image":"a.jpg","v":1e999,"w":2}')) == 0
    assert "t.jsonl:1: 'v' is infinite" in capsys.readouterr().out
    assert hits(capsys)[0]["metadata"]["w"] == 2


def test_a_row_that_nests_too_deeply_is_left_out(shop, capsys):
    deep = '{"image":"a.jpg","x":' + "[" * 100_000 + "]" * 100_000 + "}"
    table = write("t.jsonl", deep, '{"image":"b.jpg"}')
    assert index(table, "--max-bad-share", "0.5") == 0
    assert "t.jsonl:1: nests too deeply" in capsys.readouterr().out
    assert names(hits(capsys)) == ["b.jpg"]


def test_a_too_large_number_in_a_filter_gets_advice(shop, capsys):
    assert index(write("t.csv", "image,caption,pid", "a.jpg,red,9223372036854775808")) == 0
    assert main(["query", "model.plan", "coat", "--where", "pid = 9223372036854775808"]) == 1
    assert "write it in quotes" in capsys.readouterr().err
    assert names(hits(capsys, "--where", "pid = '9223372036854775808'")) == ["a.jpg"]
