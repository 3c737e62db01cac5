from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import finegrain
from finegrain.cli.parser import main
from finegrain.errors import ImageError, QueryError
from finegrain.search.asking.sample import SAMPLE_ROWS, GallerySample, chosen_ids
from finegrain.search.matches import Match, Matches


@pytest.fixture
def matches(crops_searcher):
    return crops_searcher.query("woman in red coat", 6)


def ids(matches: Matches) -> list[int]:
    return [match.id for match in matches]


# --- several pictures -------------------------------------------------------------------


def test_several_pictures_search_by_their_mean(crops_searcher, crops):
    paths = [crops / name for name in ("00.jpg", "03.jpg", "07.jpg")]
    matches = crops_searcher.query(images=paths, k=12)
    vectors = crops_searcher.gallery.vectors(crops_searcher.gallery)
    of_name = {Path(m.image).name: vectors[m.id].astype(float) for m in matches}
    mean = sum(of_name[path.name] for path in paths)
    mean /= np.linalg.norm(mean)
    expected = {name: vector @ mean for name, vector in of_name.items()}
    assert [Path(m.image).name for m in matches] == sorted(expected, key=lambda n: -expected[n])
    assert [m.score for m in matches] == pytest.approx(sorted(expected.values())[::-1], abs=1e-5)
    assert matches.query == "<3 pictures>"


def test_one_picture_in_a_list_searches_like_the_picture(crops_searcher, crops):
    path = crops / "05.jpg"
    assert crops_searcher.query(images=[path]) == crops_searcher.query(path)


def test_a_picture_that_cannot_be_read_is_named_and_left_out(crops_searcher, crops, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    readable = [crops / "00.jpg", crops / "03.jpg"]
    matches = crops_searcher.query(images=[readable[0], broken, readable[1]])
    assert [str(broken) in note for note in matches.notes] == [True]
    assert ids(matches) == ids(crops_searcher.query(images=readable))


def test_pictures_none_of_which_can_be_read_are_refused(crops_searcher, tmp_path):
    with pytest.raises(ImageError, match="none of the 2 pictures can be read"):
        crops_searcher.query(images=[tmp_path / "a.jpg", tmp_path / "b.jpg"])


@pytest.mark.parametrize("images", [[], Path("a.jpg"), "a.jpg", [3], ["a.jpg"], 3])
def test_images_that_are_not_a_list_of_pictures_are_refused(crops_searcher, images):
    with pytest.raises(QueryError, match="images"):
        crops_searcher.query(images=images)


def test_images_beside_a_query_are_refused(crops_searcher, crops):
    with pytest.raises(QueryError, match="both"):
        crops_searcher.query("red coat", images=[crops / "00.jpg"])


# --- feedback ---------------------------------------------------------------------------


def test_feedback_without_judgements_changes_nothing(matches):
    assert matches.refine() == matches


def test_judged_pictures_leave_the_answer(crops_searcher, matches):
    refined = matches.refine(like=[1, 4], unlike=[2])
    judged = {matches[0].id, matches[3].id, matches[1].id}
    assert len(refined) == 6
    assert judged.isdisjoint(ids(refined))
    assert refined == crops_searcher.query(
        "woman in red coat", 6, like=[matches[0].id, matches[3].id], unlike=[matches[1].id]
    )


def test_what_is_like_a_wrong_picture_drops_and_what_is_like_a_right_one_rises(crops_searcher):
    before = crops_searcher.query("woman in red coat", 12)
    vectors = crops_searcher.gallery.vectors(crops_searcher.gallery)
    judged = before[5]
    # the picture that is nearest to the judged one, among the others
    twin = max(
        (m for m in before if m is not judged), key=lambda m: vectors[m.id] @ vectors[judged.id]
    )
    others = [m.id for m in before if m is not judged]
    for name, rises in (("like", True), ("unlike", False)):
        after = ids(before.refine(**{name: [judged]}))
        change = others.index(twin.id) - after.index(twin.id)
        assert change >= 0 if rises else change <= 0
    scores = {m.id: m.score for m in before.refine(like=[judged])}
    lower = {m.id: m.score for m in before.refine(unlike=[judged])}
    assert scores[twin.id] > before[twin.rank - 1].score > lower[twin.id]


def test_judgements_of_earlier_rounds_stay(matches):
    first = matches.refine(like=[1])
    second = first.refine(unlike=[1, first[2]])
    judged = {matches[0].id, first[0].id, first[2].id}
    assert judged.isdisjoint(ids(second))


def test_a_part_of_the_matches_can_be_refined_by_its_ranks(matches):
    assert matches[2:5].refine(like=[4]) == matches.refine(like=[4])
    with pytest.raises(QueryError, match=r"3 to 5"):
        matches[2:5].refine(like=[1])


@pytest.mark.parametrize("rank", [0, -1, 7, 1.0, "1", None, True])
def test_ranks_that_no_match_has_are_refused(matches, rank):
    with pytest.raises(QueryError, match="1 to 6"):
        matches.refine(unlike=[rank])


def test_a_picture_judged_both_right_and_wrong_is_refused(matches):
    with pytest.raises(QueryError, match="both like and unlike"):
        matches.refine(like=[1], unlike=[1])
    with pytest.raises(QueryError, match="both like and unlike"):
        matches.refine(like=[1]).refine(unlike=[matches[0]])


@pytest.mark.parametrize("wrong", [[0], [-3], ["7"], [True], [2.0]])
def test_ids_that_are_no_ids_are_refused(crops_searcher, wrong):
    with pytest.raises(QueryError, match="ids of pictures"):
        crops_searcher.query("coat", like=wrong)


def test_judged_pictures_that_are_gone_are_named(crops_searcher):
    matches = crops_searcher.query("coat", 5, like=[3, 99], unlike=[77])
    assert any("not in the gallery: pictures 99, 77" in note for note in matches.notes)
    without = crops_searcher.query("coat", 5, like=[3])
    assert ids(matches) == ids(without)


def test_feedback_on_gone_pictures_alone_changes_no_order(crops_searcher):
    plain = crops_searcher.query("coat", 5)
    assert ids(crops_searcher.query("coat", 5, like=[98], unlike=[99])) == ids(plain)


def test_feedback_works_on_pictures_and_with_filters(searcher, crops):
    paths = sorted(crops.iterdir())
    searcher.add(paths, [{"floor": n % 2} for n in range(len(paths))], progress=False)
    matches = searcher.query(paths[0], 3, where="floor = 0")
    refined = matches.refine(like=[1], unlike=[2])
    assert {m.metadata["floor"] for m in refined} == {0}
    assert {matches[0].id, matches[1].id}.isdisjoint(ids(refined))


def test_feedback_on_several_queries_is_refused(crops_searcher):
    with pytest.raises(QueryError, match="one by one"):
        crops_searcher.query(["coat", "dress"], like=[1])


def test_matches_without_a_searcher_cannot_be_refined():
    match = Match(rank=1, score=0.5, id=3, image=None)
    with pytest.raises(QueryError, match="matches of a searcher"):
        Matches("coat", [match]).refine(like=[1])


def test_the_command_takes_pictures_and_judgements(crops_searcher, tiny_plan, crops, capsys):

    gallery = str(crops_searcher.gallery.path)
    base = ["query", str(tiny_plan), "--gallery", gallery, "--json"]
    main([*base, "coat", "--like", "3", "5", "--unlike", "2"])
    shown = [row["id"] for row in json.loads(capsys.readouterr().out)]
    assert shown == ids(crops_searcher.query("coat", like=[3, 5], unlike=[2]))
    pictures = [crops / "00.jpg", crops / "01.jpg"]
    main([*base, "--image", str(pictures[0]), "--image", str(pictures[1])])
    shown = [row["id"] for row in json.loads(capsys.readouterr().out)]
    assert shown == ids(crops_searcher.query(images=pictures))


# --- the sample -------------------------------------------------------------------------


def drawn(count: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_small_gallery_is_its_own_sample_and_is_followed(tmp_path):
    with finegrain.Gallery(tmp_path / "g", dim=4) as gallery:
        gallery.add(drawn(20), [None] * 20)
        sample = GallerySample(gallery)
        assert np.array_equal(sample.rows(), drawn(20))
        gallery.delete([3])
        gallery.add(drawn(1), [None])
        assert sample.rows().shape == (20, 4)
        assert sample.ids.tolist() == [1, 2, *range(4, 22)]


def test_a_sample_depends_on_the_ids_alone_and_grows_with_the_gallery(tmp_path):
    with finegrain.Gallery(tmp_path / "g", dim=4) as gallery:
        gallery.add(drawn(300), [None] * 300)
        one, other = GallerySample(gallery, size=100), GallerySample(gallery, size=100)
        assert np.array_equal(one.rows(), other.rows())
        assert one.rows().shape == (100, 4)
        gallery.add(drawn(20), [None] * 20)
        assert np.array_equal(one.rows(), other.rows())
        assert one.ids.max() <= 300
        gallery.add(drawn(20), [None] * 20)  # more than a tenth
        one.rows()
        assert one.ids.tolist() == chosen_ids(np.arange(1, 341), 100).tolist()
        assert one.ids.max() > 300
        gallery.delete([int(one.ids[0])])
        assert one.rows().shape == (100, 4)


def test_the_sample_is_spread_over_the_gallery():
    chosen = chosen_ids(np.arange(1, 100_001), SAMPLE_ROWS)
    counts, _ = np.histogram(chosen, 10, (1, 100_001))
    assert len(set(chosen.tolist())) == SAMPLE_ROWS
    assert counts.min() > 150
    assert counts.max() < 250
