"""Query arguments that are extreme, of another type, or mistyped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finegrain.errors import FinegrainError, ImageError, QueryError
from finegrain.search.matches import Match, Matches
from finegrain.search.searcher import Searcher


@pytest.mark.parametrize("k", [1, 5, 12, 13, 10**9, 10**30, np.int64(5), np.uint8(5), np.int32(99)])
@pytest.mark.parametrize("options", [{}, {"group_by": "image"}, {"distinct": 1.0}])
def test_a_large_or_numpy_k_is_accepted(crops_searcher: Searcher, k, options):
    assert len(crops_searcher.query("coat", k, **options)) == min(int(k), 12)
    query = crops_searcher.query("coat", 12)
    assert len(crops_searcher.query("coat", 12, offset=k)) == max(0, len(query) - int(k))


@pytest.mark.parametrize(
    "k", [0, -1, True, "ten", 1.0, np.float64(3), np.True_, [3], np.array([3])]
)
@pytest.mark.parametrize("name", ["k", "offset"])
def test_other_numbers_are_refused(crops_searcher: Searcher, name: str, k):
    if name == "offset" and k is not True and k == 0:
        pytest.skip("an offset of 0 is valid")
    with pytest.raises(QueryError, match=f"{name} is a whole number"):
        crops_searcher.query("coat", **{name: k})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "the query is empty"),
        (" \t\n", "the query is empty"),
        ("\u200b\u2060", "the query is empty"),
        ("word " * 10_000, "50000 characters, more than 2000"),
        ("a\0b", r"control character '\\x00'"),
        ("\x1b[2J", r"control character '\\x1b'"),
        ("coat\x85", r"control character '\\x85'"),
        ("\ud800", r"control character '\\ud800'"),
        (None, "expected a text or a picture to search for, got NoneType"),
        (3, "got int"),
        ({"coat"}, "got set"),
    ],
)
def test_an_unreadable_query_is_named(crops_searcher: Searcher, query, message: str):
    with pytest.raises(QueryError, match=message) as alone:
        crops_searcher.query(query)
    with pytest.raises(QueryError) as among:
        crops_searcher.query(["red coat", query, "blue coat"])
    assert str(among.value) == f"query 2 of 3: {alone.value}"


@pytest.mark.parametrize(
    "query", ["😀", "👩‍👩‍👧 🧥", "e\u0301", "中文", "red\tcoat\r\nx", "%", "''", "x" * 2000]
)
def test_unusual_texts_are_searched(crops_searcher: Searcher, query: str):
    assert len(crops_searcher.query(query, 3)) == 3


def test_words_beyond_the_context_are_counted(crops_searcher: Searcher):
    (note,) = crops_searcher.query("word " * 390).notes
    assert "the last 315 words were not read" in note
    (note,) = crops_searcher.query("x" * 2000).notes
    assert "the last word was not read" in note


@pytest.mark.parametrize(
    "picture",
    [Path(), Path("nowhere.jpg"), Path("a\0.jpg"), Path("x" * 5000), b"", b"xx", np.zeros(3),
     np.zeros((0, 0, 3), np.uint8)],
)  # fmt: skip
def test_an_unreadable_picture_is_named(crops_searcher: Searcher, picture):
    with pytest.raises(ImageError):
        crops_searcher.query(picture)


def test_a_folder_is_not_a_picture(crops_searcher: Searcher, crops: Path):
    with pytest.raises(ImageError, match="is not a file"):
        crops_searcher.query(crops)
    assert "is a folder" in crops_searcher.query(f"'{crops}'").notes[0]
    assert "search by the picture" in crops_searcher.query(f"file://{crops}/00.jpg").notes[0]


@pytest.fixture(scope="module")
def priced(tiny_plan: Path, crops: Path, tmp_path_factory: pytest.TempPathFactory):
    """Four pictures have a price, two of them the same; eight pictures have no price."""
    prices = [{"price": price} for price in (5, 5.0, 7, True)] + [{}] * 8
    place = tmp_path_factory.mktemp("priced") / "g"
    with Searcher(tiny_plan, gallery=place, threads=1) as searcher:
        searcher.add(sorted(crops.iterdir()), metadata=prices, progress=False)
        yield searcher


@pytest.mark.parametrize("k", [1, 4, 11, 12, 10**9])
def test_pictures_without_a_value_are_separate_groups(priced: Searcher, k: int):
    matches = priced.query("coat", k, group_by="price")
    ranking = priced.query("coat", 12)
    seen: set[object] = set()
    expected = []
    for match in ranking:
        value = match.metadata.get("price")
        key = match.id if value is None else (isinstance(value, bool), value, "price")
        if key not in seen:
            seen.add(key)
            expected.append(match.id)
    assert len(expected) == 11
    assert [match.id for match in matches] == expected[:k]


@pytest.mark.parametrize("group_by", ["", "nope", "Price", 3, "track"])
def test_a_column_that_no_picture_has_is_refused(priced: Searcher, group_by):
    with pytest.raises(QueryError, match="group_by"):
        priced.query("coat", group_by=group_by)


@pytest.mark.parametrize(
    "where",
    ["", " ", "()", "nope = 1", "price = 'x'", "price > '3'", "price in ()", "price = null",
     "price between 1", "time = 5", "time > '2026-05'", "id = 99999999999999999999", "price = 7;",
     "camera = “x”", "(" * 500, "\0", 3, b"price = 7"],
)  # fmt: skip
def test_an_invalid_filter_is_an_error(priced: Searcher, where):
    with pytest.raises(FinegrainError):
        priced.query("coat", where=where)


# --- grids ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1), (640, 60), (60, 640), (300, 300)])
@pytest.mark.parametrize("tile", [None, (128, 64), (32, 32)])
def test_a_grid_shows_pictures_of_any_shape(tmp_path: Path, size: tuple[int, int], tile):
    Image.new("RGB", size, (200, 30, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    matches = Matches(
        "a long query " * 100,
        [
            Match(rank=1, score=0.5, id=1, image=str(tmp_path / "a.png"), pid="p" * 5000),
            Match(rank=2, score=0.4, id=2, image=str(tmp_path / "b.png"), camera="a\nb\x1b[2J",
                  metadata={"line\nbreak" * 20: "😀" * 500}),
            Match(rank=3, score=0.3, id=3, image=None),
        ],
    )  # fmt: skip
    grid = matches.grid(tile=tile, correct=[True, False, True])
    pixels = np.asarray(grid).reshape(-1, 3).astype(int)
    assert (np.abs(pixels - (200, 30, 30)).max(axis=1) < 40).any()
    assert matches._repr_html_().count("<figure") == 3
