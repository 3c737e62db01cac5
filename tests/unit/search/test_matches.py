from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from finegrain.errors import ImageError, MissingExtraError
from finegrain.search.matches import Match, Matches
from finegrain.search.picture_grid import fitting_tile

GREEN, RED = (38, 150, 84), (206, 58, 50)


def jpeg(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 40), colour).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def matches(tmp_path: Path) -> Matches:
    path = tmp_path / "crop.png"
    Image.new("RGB", (16, 32), "blue").save(path)
    return Matches(
        "woman in a red coat",
        [
            Match(rank=1, score=0.5, id=4, image=str(path), pid=7, metadata={"sale": True}),
            Match(rank=2, score=0.25, id=9, image=None, camera="gate-3", thumbnail=jpeg("red")),
            Match(rank=3, score=0.125, id=2, image=str(tmp_path / "gone.jpg")),
        ],
    )


def test_matches_are_a_sequence(matches: Matches):
    assert len(matches) == 3
    assert matches[0].rank == 1
    assert matches[-1].id == 2
    assert [match.id for match in matches] == [4, 9, 2]
    part = matches[:2]
    assert isinstance(part, Matches)
    assert (part.query, len(part)) == (matches.query, 2)
    assert matches[:3] == matches
    assert part != matches
    assert matches != list(matches)


def test_a_match_opens_its_file_or_its_thumbnail(matches: Matches):
    assert matches[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert matches[1].open().size == (20, 40)
    with pytest.raises(ImageError, match=r"gone\.jpg does not exist"):
        matches[2].open()
    with pytest.raises(ImageError, match="has no path and no thumbnail"):
        Match(rank=1, score=0.0, id=1, image=None).open()


def test_dictionaries_are_json(matches: Matches):
    first = json.loads(json.dumps(matches.to_dicts()))[0]
    assert first["metadata"] == {"sale": True}
    assert (first["rank"], first["score"], first["id"], first["pid"]) == (1, 0.5, 4, 7)
    assert (first["time"], first["track"]) == (None, None)


SEEN = Match(
    rank=1,
    score=0.25,
    match=0.9,
    id=4,
    image=None,
    time="2026-05-01T08:00:12.345Z",
    track="gate-3/7",
    metadata={"site": "a"},
)


def test_the_thumbnail_is_shown_if_the_file_is_missing(tmp_path: Path):
    gone = Match(rank=1, score=0.1, id=1, image=str(tmp_path / "gone.jpg"), thumbnail=jpeg("red"))
    assert gone.open().size == (20, 40)


def test_a_frame_without_a_decoder_is_a_tile_with_a_message(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    address = f"{tmp_path}/film.mp4#t=1.000"
    (tmp_path / "film.mp4").touch()
    frame = Match(rank=1, score=0.1, id=1, image=address)
    with pytest.raises(MissingExtraError, match="video"):
        frame.open()
    assert "picture not found" in Matches("q", [frame])._repr_html_()
    assert Matches("q", [frame]).grid().width > 0
    kept = Match(rank=1, score=0.1, id=1, image=address, thumbnail=jpeg("red"))
    assert kept.open().size == (20, 40)


# --- the table --------------------------------------------------------------------------


def test_the_table_shows_known_columns(matches: Matches, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    title, header, _, first, second, *_ = str(matches).splitlines()
    assert title == "3 matches for 'woman in a red coat'"
    assert header.split() == ["rank", "score", "image", "pid", "camera", "sale"]
    assert first.split()[1] == "0.5000"
    assert first.split()[-1] == "true"
    assert second.split() == ["2", "0.2500", "-", "-", "gate-3", "-"]


def test_the_table_shows_match_probability_and_time(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    unread = Match(rank=2, score=0.5, id=9, image="b.jpg")
    _, header, _, first, second = str(Matches("q", [SEEN, unread])).splitlines()
    assert header.split() == ["rank", "score", "match", "image", "time", "track", "site"]
    assert first.split() == [
        "1",
        "0.2500",
        "0.9000",
        "-",
        "2026-05-01T08:00:12.345Z",
        "gate-3/7",
        "a",
    ]
    assert second.split()[:4] == ["2", "0.5000", "-", "b.jpg"]
    assert SEEN.to_dict()["time"] == "2026-05-01T08:00:12.345Z"


def test_the_table_fits_the_terminal_and_has_few_columns(monkeypatch):
    fields = {f"column{i}": "x" * 50 for i in range(20)}
    wide = Matches("q", [Match(rank=1, score=0.1, id=1, image="a" * 99, metadata=fields)])
    for columns in ("60", "400"):
        monkeypatch.setenv("COLUMNS", columns)
        lines = repr(wide).splitlines()
        assert max(map(len, lines)) <= int(columns)
        assert len(lines[1].split()) <= 8
    assert "a" * 99 not in repr(wide)
    assert "…aaa" in repr(wide)


@pytest.mark.parametrize("columns", [50, 60, 80, 200])
def test_a_narrow_table_keeps_numbers_and_names_and_names_dropped_columns(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    fields = {"description": "a long coat of wool " * 3, "note": "y" * 25, "price": 1299.5}
    images = [f"/data/shop/pictures/product_{n}_front.jpg" for n in (1, 2)]
    text = repr(
        Matches("q", [Match(rank=1, score=0.1, id=1, image=i, metadata=fields) for i in images])
    )
    assert max(map(len, text.splitlines())) <= columns
    assert text.count("1299.5") == 2
    assert "_1_front.jpg" in text
    assert "_2_front.jpg" in text
    header = text.splitlines()[1].split()
    assert ("not shown: description" in text) == ("description" not in header)
    if columns == 200:
        assert header == ["rank", "score", "image", "description", "note", "price"]
        assert "not shown" not in text
    if columns == 80:
        assert header == ["rank", "score", "image", "note", "price"]


def test_control_characters_do_not_reach_the_terminal():
    result = [Match(rank=1, score=0.1, id=1, image="\x1b[31mred\n.jpg", metadata={"a": "\x07"})]
    text = str(Matches("q", result))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert len(text.splitlines()) == 4


def test_empty_matches_can_be_printed_and_drawn():
    empty = Matches("nothing", [])
    assert str(empty) == "0 matches for 'nothing'"
    assert "nothing" in empty._repr_html_()
    assert empty.grid().width > 0


# --- the notebook -----------------------------------------------------------------------


def test_html_contains_every_picture(matches: Matches):
    page = matches._repr_html_()
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert page.count("picture not found") == 1


def test_html_escapes_all_values():
    evil = "<script>alert('x')</script>\"'>"
    result = [Match(rank=1, score=0.1, id=1, image=evil, camera=evil, metadata={"a": evil})]
    page = Matches(evil, result)._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count('"') % 2 == 0


def test_captions_start_with_the_most_important_value():
    unread = Match(rank=2, score=0.5, id=9, image=None, pid=8, camera="gate-4", metadata={"a": "b"})
    page = Matches("q", [SEEN, unread])._repr_html_()
    shown = re.findall(r">(\w+: [^<]+)<", page)
    assert shown[:3] == ["match: 0.900", "time: 2026-05-01 08:00:12", "track: gate-3/7"]
    assert shown[3:] == ["pid: 8", "camera: gate-4", "a: b"]


# --- the picture grid -------------------------------------------------------------------


def holds(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.abs(np.asarray(picture).astype(int) - colour).max(-1) <= 3).sum())


def test_the_grid_shows_the_pictures(matches: Matches):
    grid = matches.grid(columns=3, tile=(64, 32))
    assert grid.mode == "RGB"
    assert holds(grid, (0, 0, 255)) > 1500  # the blue picture fills its tile
    assert holds(grid, (254, 0, 0)) > 1500  # so does the red thumbnail
    assert holds(grid, (233, 233, 231)) > 1000  # and the missing one is grey
    assert holds(grid, (255, 255, 255)) < 100


def test_the_grid_grows_by_rows_and_columns(matches: Matches):
    one, three = matches.grid(columns=1, tile=(96, 160)), matches.grid(columns=3, tile=(96, 160))
    assert one.height > 3 * 96
    assert one.height > three.height
    assert three.width > one.width
    assert matches.grid(columns=9, tile=(96, 160)).size == three.size


def test_correct_and_wrong_matches_have_frames(matches: Matches):
    plain = matches.grid(tile=(64, 64))
    marked = matches.grid(tile=(64, 64), correct=[True, False, False])
    assert holds(plain, GREEN) == holds(plain, RED) == 0
    assert holds(marked, GREEN) > 100
    assert holds(marked, RED) > holds(marked, GREEN)


def test_the_grid_shows_match_probabilities():
    plain, sure, unsure = (
        Matches("q", [Match(rank=1, score=0.25, match=match, id=4, image=None)]).grid()
        for match in (None, 0.9, 0.1)
    )
    assert plain.width == sure.width
    assert sure.size == unsure.size
    assert len({picture.tobytes() for picture in (plain, sure, unsure)}) == 3


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ([(64, 128)] * 3, 2.0),
        ([(480, 640), (480, 640), (1000, 1000)], 4 / 3),
        ([(1920, 1080)] * 2, 9 / 16),
        ([(10, 1000)], 2.5),
        ([(1000, 10)], 1 / 2.5),
        ([], 2.0),
    ],
)
def test_tiles_have_the_shape_of_most_pictures(sizes, shape):
    height, width = fitting_tile(sizes, area=384 * 192)
    assert height / width == pytest.approx(shape, rel=0.01)
    assert height * width == pytest.approx(384 * 192, rel=0.01)


@pytest.mark.parametrize("size", [(60, 180), (180, 60), (100, 100)])
def test_a_picture_is_shown_completely_and_without_margins(tmp_path: Path, size: tuple[int, int]):
    """Its four edges of different colours are visible, and white is not."""
    image = Image.new("RGB", size, (90, 90, 90))
    draw = ImageDraw.Draw(image)
    width, height = size
    for box, colour in (
        ((0, 0, width, 12), "red"), ((0, height - 12, width, height), "blue"),
        ((0, 12, 12, height - 12), "lime"), ((width - 12, 12, width, height - 12), "magenta"),
    ):  # fmt: skip
        draw.rectangle(box, fill=colour)
    image.save(tmp_path / "a.png")
    every = [Match(rank=1, score=0.5, id=1, image=str(tmp_path / "a.png"))]
    grid = Matches("q", every).grid()
    for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 255)):
        assert holds(grid, colour) > 300
    # One wide picture among tall ones also keeps its shape.
    tall = Image.new("RGB", (50, 100))
    tall.save(tmp_path / "b.png")
    others = [
        Match(rank=2 + n, score=0.4, id=2 + n, image=str(tmp_path / "b.png")) for n in range(3)
    ]
    grid = Matches("q", [*every, *others]).grid()
    for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 255)):
        assert holds(grid, colour) > 100
    assert holds(grid, (255, 255, 255)) == 0


@pytest.mark.parametrize("name", ["grid.png", "grid.jpg", "GRID.JPEG"])
def test_the_grid_is_saved(matches: Matches, tmp_path: Path, name: str):
    matches.save(tmp_path / name, tile=(64, 32))
    with Image.open(tmp_path / name) as saved:
        assert saved.size == matches.grid(tile=(64, 32)).size


@pytest.mark.parametrize("query", ["word " * 200, "x" * 500, "", "日本語のクエリ", "a\nb"])
def test_any_query_fits_the_title(matches: Matches, query: str):
    grid = Matches(query, list(matches)).grid(columns=3, tile=(64, 32))
    edge = np.asarray(grid)[:, -4:]
    assert (edge == edge[0, 0]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": 0}, "columns=0"),
        ({"tile": (8, 64)}, "32 to 2048"),
        ({"tile": (4096, 64)}, "32 to 2048"),
        ({"correct": [True]}, "one entry of correct for each of"),
    ],
)
def test_invalid_options_are_refused(matches: Matches, options, message: str):
    with pytest.raises(ImageError, match=message):
        matches.grid(**options)


def test_a_grid_that_would_not_fit_in_memory_is_refused():
    many = Matches("q", [Match(rank=i, score=0.0, id=i, image=None) for i in range(1, 5000)])
    with pytest.raises(ImageError, match=r"matches\[:50\]"):
        many.grid()


def test_saving_needs_a_known_suffix_and_a_folder(matches: Matches, tmp_path: Path):
    with pytest.raises(ImageError, match=r"\.png or \.jpg"):
        matches.save(tmp_path / "grid.pdf")
    with pytest.raises(ImageError, match="cannot be written"):
        matches.save(tmp_path / "nowhere" / "grid.png")
