from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finegrain.encoder import Encoder
from finegrain.errors import FilterError, GalleryError, ImageError, QueryError
from finegrain.gallery import Gallery
from finegrain.plan import Manifest, Plan, write_plan
from finegrain.records import Problem
from finegrain.search.searcher import SUFFIXES, Added, Searcher

NUM_CROPS = 12


@pytest.fixture
def filled(searcher, crops):
    searcher.add(crops, progress=False)
    return searcher


def noise(height: int = 128, width: int = 64) -> Image.Image:
    return Image.effect_noise((width, height), 64).convert("RGB")


# --- adding -----------------------------------------------------------------------------


def test_all_pictures_of_a_folder_are_added(searcher, crops, tmp_path):
    shutil.copytree(crops, tmp_path / "crops" / "gate" / "day 1")
    (tmp_path / "crops" / "notes.txt").write_text("no picture")
    added = searcher.add(tmp_path / "crops", progress=False)
    assert len(added.ids) == len(set(added.ids)) == NUM_CROPS
    assert (added.num_known, [problem.kind.name for problem in added.problems]) == (0, ["ENDING"])
    assert len(searcher.gallery) == NUM_CROPS


def test_a_folder_that_is_added_twice_adds_nothing(filled, crops):
    added = filled.add(crops, progress=False)
    assert (added.ids, added.num_known) == ([], NUM_CROPS)
    assert len(filled.gallery) == NUM_CROPS
    assert "skipped 12" in str(added)


def test_only_new_files_are_added(filled, crops, tmp_path):
    shutil.copytree(crops, tmp_path / "more")
    noise().save(tmp_path / "more" / "new.png")
    filled.add(tmp_path / "more" / "00.jpg", progress=False)
    added = filled.add(tmp_path / "more", progress=False)
    assert (len(added.ids), added.num_known) == (NUM_CROPS, 1)


def test_one_file_by_several_names_is_one_picture(searcher, crops, tmp_path):
    path = crops / "00.jpg"
    (tmp_path / "link.jpg").symlink_to(path)
    names = [path, str(path), crops / ".." / crops.name / "00.jpg", tmp_path / "link.jpg"]
    added = searcher.add(names, progress=False)
    assert (len(added.ids), added.num_known) == (1, 3)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".heic", ".heif", ".hif", ".dib"}))
def test_every_listed_suffix_can_be_read(searcher, tmp_path, suffix):
    noise().save(tmp_path / f"picture{suffix.upper()}")
    assert len(searcher.add(tmp_path, progress=False).ids) == 1


def test_files_arrays_images_and_bytes_have_equal_embeddings(searcher, crops):
    path = crops / "00.jpg"
    with Image.open(path) as image:
        image.load()
    sources = [path, np.asarray(image), image, path.read_bytes()]
    added = searcher.add((source for source in sources), progress=False)
    assert len(added.ids) == 4
    assert {round(match.score, 4) for match in searcher.query(path, 4)} == {1.0}


def test_a_single_array_or_image_is_one_picture(searcher):
    assert len(searcher.add(noise(), progress=False).ids) == 1
    assert len(searcher.add(np.asarray(noise()), progress=False).ids) == 1
    assert len(searcher.add([], progress=False).ids) == 0


def test_pictures_without_a_file_can_be_opened_again(searcher):
    picture = noise(2000, 1000)
    searcher.add([picture, np.asarray(noise())], progress=False)
    assert picture.size == (1000, 2000)
    matches = searcher.query("anything")
    assert [match.image for match in matches] == [None, None]
    assert {match.open().size for match in matches} == {(256, 512), (64, 128)}


def test_metadata_can_apply_to_all_pictures(searcher, crops):
    searcher.add(crops, metadata={"camera": "gate-3", "floor": 2}, progress=False)
    match = searcher.query("coat", 1)[0]
    assert (match.camera, match.metadata) == ("gate-3", {"floor": 2})


def test_metadata_can_differ_for_each_picture(searcher, crops):
    paths = sorted(crops.iterdir())
    rows = [{"pid": number, "price": number * 10.0} for number in range(len(paths))]
    searcher.add(paths, rows, progress=False)
    match = searcher.query(paths[7], 1)[0]
    assert (match.pid, match.metadata) == (7, {"price": 70.0})


def test_metadata_stays_with_its_picture_when_others_are_left_out(searcher, crops, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    paths = [crops / "00.jpg", tmp_path / "broken.jpg", crops / "01.jpg", crops / "02.jpg"]
    searcher.add(crops / "01.jpg", {"place": "known"}, progress=False)
    searcher.add(paths, [{"place": name} for name in "abcd"], progress=False)
    result = {Path(m.image).name: m.metadata["place"] for m in searcher.query("coat")}
    assert result == {"00.jpg": "a", "01.jpg": "known", "02.jpg": "d"}


def test_metadata_of_another_length_is_refused(crops_searcher, crops):
    with pytest.raises(GalleryError, match="metadata for each of the 1 pictures, got 2"):
        crops_searcher.add([noise()], [{}, {}], progress=False)
    assert len(crops_searcher.gallery) == NUM_CROPS


@pytest.mark.parametrize("row", [{"tags": ["a"]}, {"pid": 7.5}, {"camera": [3]}, {3: "x"}])
def test_invalid_metadata_is_refused_and_nothing_is_lost(crops_searcher, row):
    with pytest.raises(GalleryError):
        crops_searcher.add([noise()], row, progress=False)
    assert len(crops_searcher.gallery) == NUM_CROPS
    assert len(crops_searcher.query("coat")) == 10


@pytest.mark.parametrize("pictures", ["nowhere", Path("nowhere/at-all.jpg"), 3, None, "x" * 300])
def test_other_inputs_than_pictures_and_folders_are_refused(searcher, pictures):
    with pytest.raises(ImageError):
        searcher.add(pictures, progress=False)


def test_a_folder_without_pictures_is_refused(searcher, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"holds no picture \(.avif, "):
        searcher.add(tmp_path / "empty", progress=False)


def test_an_invalid_picture_in_a_list_is_left_out(searcher, crops):
    odd = ["nowhere.jpg", None, 3, "x" * 300 + ".jpg", "a\0b.jpg", np.zeros((2, 2), float), b"x"]
    added = searcher.add([crops / "00.jpg", *odd, crops / "01.jpg"], progress=False)
    assert len(added.ids) == 2
    assert len(added.problems) == len(odd)
    assert "left out 7 (7 unreadable picture)" in str(added)


def test_a_long_list_of_problems_is_shortened():
    problems = [Problem(where=f"{number}.jpg", why="broken") for number in range(99)]
    shown = str(Added(ids=[1], num_known=0, problems=problems))
    assert "left out 99" in shown
    assert shown.count("broken") == 10


def test_a_file_whose_name_is_not_unicode_is_left_out(searcher, crops, tmp_path):
    folder = Path(shutil.copytree(crops, tmp_path / "mixed"))
    try:
        shutil.copy(crops / "00.jpg", os.fsencode(folder) + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system has Unicode names only")
    added = searcher.add(folder, progress=False)
    assert len(added.ids) == NUM_CROPS
    assert len(added.problems) == 1
    assert "caf" in str(added).encode().decode()
    assert searcher.add(folder, progress=False).num_known == NUM_CROPS


# --- querying ---------------------------------------------------------------------------


def test_the_best_match_of_a_picture_is_itself(crops_searcher, crops):
    for path in crops.iterdir():
        first = crops_searcher.query(path, 3)[0]
        assert (first.rank, first.image) == (1, str(path.resolve()))
        assert first.score == pytest.approx(1, abs=1e-4)


def test_a_text_ranks_by_the_inner_product(crops_searcher, tiny_plan, crops):
    paths = sorted(crops.iterdir())
    encoder = Encoder.from_plan(Plan(tiny_plan), threads=1)
    scores = encoder.encode_images(paths) @ encoder.encode_texts(["woman in red coat"])[0]
    matches = crops_searcher.query("woman in red coat", NUM_CROPS)
    wanted = [str(paths[i].resolve()) for i in np.argsort(-scores)]
    assert [match.image for match in matches] == wanted
    assert [match.rank for match in matches] == list(range(1, NUM_CROPS + 1))
    np.testing.assert_allclose([m.score for m in matches], -np.sort(-scores), atol=1e-5)


def test_k_is_ten_or_all_of_a_smaller_gallery(searcher, crops):
    paths = sorted(crops.iterdir())
    searcher.add(paths[:3], progress=False)
    assert len(searcher.query("coat")) == 3
    searcher.add(paths, progress=False)
    assert len(searcher.query("coat")) == 10


def test_where_searches_matching_pictures_only(searcher, crops):
    paths = sorted(crops.iterdir())
    rows = [{"camera": f"gate-{i % 3}", "price": i} for i in range(NUM_CROPS)]
    searcher.add(paths, rows, progress=False)
    matches = searcher.query("coat", where="camera = 'gate-2' and price < 6")
    assert sorted(match.metadata["price"] for match in matches) == [2, 5]
    assert len(searcher.query("coat", where="price > 99")) == 0


@pytest.mark.parametrize("where", ["colour = 'red'", "camera = ", "camera = 3", "; drop table", ""])
def test_a_wrong_filter_is_refused(crops_searcher, where):
    with pytest.raises(FilterError):
        crops_searcher.query("coat", where=where)
    assert len(crops_searcher.query("coat")) == 10


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "the query is empty"),
        (" \t\n\u3000", "the query is empty"),
        ("\u200b\u2060 ", "the query is empty"),
        ("a" * 10_000, "10000 characters, more than 2000"),
        ("red\0coat", r"control character '\\x00'"),
        ("red\x1b[31m coat", "control character"),
        ("red \ud800 coat", "control character"),
        (3, "got int"),
        (None, "got NoneType"),
        ([["red coat"]], "got list"),
        ({"text": "red coat"}, "got dict"),
    ],
)
def test_an_invalid_query_is_refused(crops_searcher, query, why):
    with pytest.raises(QueryError, match=why):
        crops_searcher.query(query)
    assert len(crops_searcher.query("red coat")) == 10


@pytest.mark.parametrize(
    "query",
    ["红色外套", "🧥", "a\tred\ncoat", "a" * 2_000, "<end_of_text>", "&#65; &lt;", "' OR 1=1"],
)
def test_unusual_texts_are_searched(crops_searcher, query):
    assert len(crops_searcher.query(query)) == 10


@pytest.mark.parametrize("k", [0, -1, True, False, 2.0, "3", b"3"])
def test_an_invalid_k_is_refused(crops_searcher, k):
    with pytest.raises(QueryError, match="k "):
        crops_searcher.query("coat", k)
    assert len(crops_searcher.query("coat", NUM_CROPS)) == NUM_CROPS


def test_the_error_without_a_gallery_tells_what_to_do(searcher):
    with pytest.raises(GalleryError, match=r"no gallery at .*Searcher.add.*finegrain index"):
        searcher.query("coat")


def test_the_error_of_an_empty_gallery_tells_what_to_do(filled):
    filled.gallery.delete(list(filled.gallery))
    with pytest.raises(GalleryError, match="is empty; add pictures"):
        filled.query("coat")


def test_a_missing_file_is_matched_and_an_error_when_opened(searcher, crops, tmp_path):
    path = Path(shutil.copy(crops / "00.jpg", tmp_path / "00.jpg"))
    searcher.add(path, progress=False)
    path.unlink()
    match = searcher.query("coat")[0]
    with pytest.raises(ImageError, match="does not exist"):
        match.open()


# --- opening, closing, reopening --------------------------------------------------------


def test_a_reopened_gallery_has_all_pictures(plan, crops):
    with Searcher(plan, threads=1) as searcher:
        searcher.add(crops, metadata={"camera": "gate-3"}, progress=False)
        searcher.add(noise(), progress=False)
        before = searcher.query("woman in red coat")
    with Searcher(plan, threads=1) as searcher:
        assert searcher.query("woman in red coat") == before
        assert searcher.add(crops, progress=False).num_known == NUM_CROPS
        assert len(searcher.gallery) == NUM_CROPS + 1


def test_leaving_the_context_closes_the_gallery(plan, crops):
    with Searcher(plan, threads=1) as searcher:
        searcher.add(crops, progress=False)
    with pytest.raises(GalleryError, match="closed"):
        searcher.query("coat")


def test_an_unused_searcher_can_be_closed(plan):
    searcher = Searcher(plan, threads=1)
    searcher.close()
    assert not plan.with_suffix(".gallery").exists()


def test_repr_describes_plan_and_gallery(searcher, crops):
    assert "clip, 0 pictures" in repr(searcher)
    searcher.add(crops, progress=False)
    assert "12 pictures in" in repr(searcher)
    assert "model.gallery" in repr(searcher)


def test_a_gallery_can_be_a_path_or_an_open_gallery(plan, crops, tmp_path):
    elsewhere = tmp_path / "elsewhere.gallery"
    with Searcher(plan, gallery=elsewhere, threads=1) as searcher:
        searcher.add(crops, progress=False)
    assert not plan.with_suffix(".gallery").exists()
    opened = Gallery(elsewhere)
    with Searcher(plan, gallery=opened, threads=1) as searcher:
        assert len(searcher.query("coat")) == 10
        assert searcher.gallery is opened


@pytest.fixture
def other_plan(tiny_plan, tmp_path) -> Path:
    """A plan of the same width whose embeddings are not comparable."""
    opened = Plan(tiny_plan)
    members = {name: opened.take(name) for name in opened.manifest.sha256}
    facts = {name: getattr(opened.manifest, name) for name in Manifest.__slots__}
    path = tmp_path / "other.plan"
    write_plan(path, Manifest(**{**facts, "fit": "pad"}), members)
    return path


def test_a_gallery_of_another_plan_is_refused_and_unchanged(plan, other_plan, crops):
    gallery = plan.with_suffix(".gallery")
    with Searcher(plan, threads=1) as searcher:
        searcher.add(crops, progress=False)
        before = searcher.query("coat")
    with pytest.raises(GalleryError, match="plan"):
        Searcher(other_plan, gallery=gallery, threads=1)
    with Gallery(gallery) as opened, pytest.raises(GalleryError, match="cannot be compared"):
        Searcher(other_plan, gallery=opened, threads=1)
    with Searcher(plan, threads=1) as searcher:
        assert searcher.query("coat") == before


def test_a_file_that_is_not_a_gallery_is_refused_and_unchanged(plan, tmp_path):
    path = tmp_path / "notes.gallery"
    path.write_text("my notes" * 100)
    with pytest.raises(GalleryError, match="not a gallery"):
        Searcher(plan, gallery=path, threads=1)
    assert path.read_text() == "my notes" * 100


def test_a_folder_that_does_not_exist_is_named(plan, crops, tmp_path):
    searcher = Searcher(plan, gallery=tmp_path / "nowhere" / "model.gallery", threads=1)
    with pytest.raises(GalleryError, match="nowhere does not exist"):
        searcher.add(crops, progress=False)


def test_an_interrupted_add_keeps_its_batches_and_can_be_continued(plan, crops, monkeypatch):
    searcher = Searcher(plan, threads=1)
    searcher._encoder.batch_size = 4
    encode, calls = searcher._encoder.runtime.encode_images, []

    def stopped_at_the_third(pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(pixels)

    monkeypatch.setattr(searcher._encoder.runtime, "encode_images", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        searcher.add(crops, progress=False)
    # Not closed, as after the end of a process.
    with Searcher(plan, threads=1) as resumed:
        assert len(resumed.gallery) == 8
        added = resumed.add(crops, progress=False)
        assert (len(added.ids), added.num_known) == (4, 8)
        images = [row.image for row in resumed.gallery.rows(resumed.gallery)]
        assert sorted(images) == sorted(str(path.resolve()) for path in crops.iterdir())
    searcher.close()
