from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.evaluation.background import Background
from finegrain.evaluation.match_probability import MatchProbability
from finegrain.gallery import Gallery
from finegrain.plan import BACKGROUND, Plan
from finegrain.search.hubs import NOT_CORRECTED
from finegrain.search.searcher import Searcher

TEXT = "woman in red coat"
PROBABILITY = MatchProbability(intercept=-1, score=6, z=0.8, log_size=-0.3, below_best=0.5)


@pytest.fixture(scope="module")
def background(tiny_plan) -> Background:
    with Searcher(tiny_plan, threads=1) as searcher:
        captions = searcher._encoder.encode_texts([f"man with {n} bags" for n in range(40)])
    return Background(
        captions=captions.astype(np.float16), weight=2.0, neighbours=3, source="captions"
    )


def plan_with(background: Background | None, tiny_plan: Path, folder: Path) -> Path:
    plan = Plan(tiny_plan)
    members = {} if background is None else {BACKGROUND: background.to_bytes()}
    plan.rewrite(folder / "model.plan", plan.manifest, members)
    return folder / "model.plan"


@pytest.fixture(scope="module")
def corrected(background, tiny_plan, crops, tmp_path_factory) -> Path:
    """A plan with hub correction, whose gallery was filled with it. Copy it before a change."""
    path = plan_with(background, tiny_plan, tmp_path_factory.mktemp("corrected"))
    with Searcher(path, threads=1) as searcher:
        searcher.add(crops, progress=False)
    return path


@pytest.fixture
def copied(corrected, tmp_path) -> Path:
    for file in corrected.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / "model.plan"


def gallery_of(plan: Path) -> Gallery:
    return Gallery(plan.with_suffix(".gallery"), create=False)


def hits_of(matches) -> list[tuple[int, float]]:
    return [(match.id, match.score) for match in matches]


def literal(searcher: Searcher, text: str, background: Background | None):
    """The scores of all pictures, by a loop."""
    query = searcher._encoder.encode_texts([text])[0].astype(float)
    scores = {}
    for id_, vector in searcher.gallery.vectors(searcher.gallery).items():
        bias = 0.0
        if background is not None:
            products = sorted(background.captions.astype(float) @ vector.astype(float))
            bias = -background.weight * sum(products[-background.neighbours :])
            bias /= background.neighbours
        scores[id_] = float(query @ vector.astype(float)) + bias
    return sorted(scores.items(), key=lambda row: -row[1])


def assert_equal(matches, expected) -> None:
    assert [match.id for match in matches] == [id_ for id_, _ in expected]
    assert [match.score for match in matches] == pytest.approx([s for _, s in expected], abs=1e-5)


def test_texts_are_searched_with_the_biases_of_the_bank(corrected, background):
    with Searcher(corrected, threads=1) as searcher:
        matches = searcher.query(TEXT, 12)
        assert_equal(matches, literal(searcher, TEXT, background))
        assert NOT_CORRECTED not in matches.notes


def test_hub_correction_changes_the_order_here(corrected, background):
    with Searcher(corrected, threads=1) as searcher:
        orders = [[i for i, _ in literal(searcher, TEXT, b)] for b in (background, None)]
    assert orders[0] != orders[1]  # otherwise the other tests would show nothing


def test_hub_correction_can_be_turned_off(corrected):
    with Searcher(corrected, threads=1, hub_correction=False) as searcher:
        matches = searcher.query(TEXT, 12)
        assert_equal(matches, literal(searcher, TEXT, None))
        assert matches.notes == ()


def test_queries_by_picture_leave_it_out(corrected, crops):
    picture = sorted(crops.iterdir())[3]
    with Searcher(corrected, threads=1) as searcher:
        expected = hits_of(Searcher(corrected, hub_correction=False, threads=1).query(picture, 12))
        assert hits_of(searcher.query(picture, 12)) == expected
        text, by_picture = searcher.query([TEXT, picture], 12)
        assert hits_of(by_picture) == expected
        assert hits_of(text) == hits_of(searcher.query(TEXT, 12))
        several = [picture, sorted(crops.iterdir())[4]]
        plain = Searcher(corrected, hub_correction=False, threads=1)
        assert hits_of(searcher.query(images=several)) == hits_of(plain.query(images=several))
        words = {"image": picture, "text": "but in a blue coat"}
        assert hits_of(searcher.query(**words)) == hits_of(plain.query(**words))


def test_denied_words_and_feedback_are_corrected_too(corrected, background):
    with Searcher(corrected, threads=1) as searcher:
        by_words = searcher.query(f"{TEXT} without a bag", 12)
        plain = Searcher(corrected, threads=1, hub_correction=False)
        biases = searcher.gallery.biases(searcher.gallery)
        expected = {m.id: m.score + biases[m.id] for m in plain.query(f"{TEXT} without a bag", 12)}
        assert {m.id: m.score for m in by_words} == pytest.approx(expected, abs=1e-5)
        liked = searcher.query(TEXT, 12, like=[3])
        expected = {m.id: m.score + biases[m.id] for m in plain.query(TEXT, 12, like=[3])}
        assert {m.id: m.score for m in liked} == pytest.approx(expected, abs=1e-5)
        assert NOT_CORRECTED not in liked.notes


def test_filters_and_pages_are_corrected(corrected, background):
    with Searcher(corrected, threads=1) as searcher:
        every = literal(searcher, TEXT, background)
        assert_equal(searcher.query(TEXT, 4, offset=3), every[3:7])


def test_an_earlier_gallery_is_searched_without_and_a_note_says_so(copied, background, tiny_plan):
    with gallery_of(copied) as gallery:
        gallery.set_bias(list(gallery), 0.0)
    with Searcher(copied, threads=1) as searcher:
        matches = searcher.query(TEXT, 12)
        assert_equal(matches, literal(searcher, TEXT, None))
        assert NOT_CORRECTED in matches.notes
        assert NOT_CORRECTED not in searcher.query(matches[0].open(), 12).notes


def test_pictures_without_a_bias_are_noticed_among_the_hits(copied, tiny_plan, background):
    """A large gallery has pictures that are not in the sample."""
    with Searcher(copied, threads=1) as searcher:
        searcher._retriever.scorer.sample._size = 4
        assert searcher.query(TEXT, 3).notes == ()
        expected = [id_ for id_, _ in literal(searcher, TEXT, None)]
        others = set(searcher.gallery) - set(searcher._retriever.scorer.sample.ids.tolist())
        with gallery_of(copied) as other:  # as an older version would add it
            other.set_bias([max(others)], 0.0)
        assert searcher._retriever.hubs.sampled(12) is not None
        matches = searcher.query(TEXT, 12)
        assert [match.id for match in matches] == expected
        assert NOT_CORRECTED in matches.notes


def test_the_biases_of_another_bank_are_noticed(copied, background):
    other = replace(background, captions=background.captions[::-1][:20])
    plan = Plan(copied)
    plan.rewrite(copied, plan.manifest, {BACKGROUND: other.to_bytes()})
    with Searcher(copied, threads=1) as searcher:
        matches = searcher.query(TEXT, 12)
        assert_equal(matches, literal(searcher, TEXT, None))
        assert NOT_CORRECTED in matches.notes


def test_pictures_that_are_added_to_an_uncorrected_gallery_get_no_bias(copied, crops):
    with gallery_of(copied) as gallery:
        gallery.set_bias(list(gallery), 0.0)
        last = max(gallery)
    picture = np.asarray(np.random.default_rng(0).integers(0, 255, (128, 64, 3)), np.uint8)
    with Searcher(copied, threads=1) as searcher:
        (new,) = searcher.add([picture], progress=False).ids
        assert new == last + 1
        assert not searcher.gallery.biases([new])


def test_one_command_corrects_a_gallery_and_continues(copied, corrected, background, capsys):
    with gallery_of(copied) as gallery:
        expected = gallery.biases(gallery)
        gallery.set_bias([1, 2], 0.0)  # lost
        gallery.set_bias([3], -0.7)  # of another bank
    assert main(["gallery", "correct-hubs", str(copied)]) == 0
    assert "12 pictures have hub correction; 3 of them got it now" in capsys.readouterr().out
    with gallery_of(copied) as gallery:
        assert gallery.biases(gallery) == pytest.approx(expected, abs=1e-5)
    assert main(["gallery", "correct-hubs", str(copied)]) == 0
    assert "0 of them" in capsys.readouterr().out


def test_an_open_searcher_follows_the_command(copied, background):
    with gallery_of(copied) as gallery:
        gallery.set_bias(list(gallery), 0.0)
    with Searcher(copied, threads=1) as searcher:
        assert NOT_CORRECTED in searcher.query(TEXT).notes
        assert main(["gallery", "correct-hubs", str(copied)]) == 0
        assert_equal(searcher.query(TEXT, 12), literal(searcher, TEXT, background))


def test_a_plan_without_a_bank_is_named(tiny_plan, tmp_path, capsys):
    shutil.copy(tiny_plan, tmp_path / "model.plan")
    with Searcher(tmp_path / "model.plan", threads=1) as searcher:
        searcher.add([np.zeros((128, 64, 3), np.uint8)], progress=False)
    assert main(["gallery", "correct-hubs", str(tmp_path / "model.plan")]) == 1
    assert "has no bank of captions" in capsys.readouterr().err


def test_a_plan_without_a_bank_adds_the_users_own_biases(tiny_plan, tmp_path, crops):
    shutil.copy(tiny_plan, tmp_path / "model.plan")
    with Searcher(tmp_path / "model.plan", threads=1) as searcher:
        searcher.add(crops, progress=False)
        searcher.gallery.set_bias([5], 3.0)
        picture = sorted(crops.iterdir())[0]
        assert [m[0].id for m in searcher.query([TEXT, picture])] == [5, 5]


def test_loaded_vectors_get_their_biases(corrected, background, tiny_plan, tmp_path):
    with gallery_of(corrected) as gallery:
        expected = gallery.biases(gallery)
        gallery.export(tmp_path / "vectors")
    path = plan_with(replace(background, weight=1.0), tiny_plan, tmp_path)
    with Searcher(path, threads=1) as searcher:
        ids = searcher.load(tmp_path / "vectors")
        halved = {id_: bias / 2 for id_, bias in expected.items()}
        assert searcher.gallery.biases(ids) == pytest.approx(halved, abs=1e-5)


def test_a_reindexed_gallery_is_corrected(copied, background, tiny_plan, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    plan = Plan(tiny_plan)
    manifest = replace(plan.manifest, fit="pad" if plan.manifest.fit != "pad" else "crop")
    plan.rewrite(folder / "model.plan", manifest, {BACKGROUND: background.to_bytes()})
    gallery = copied.with_suffix(".gallery")
    Searcher.reindex(folder / "model.plan", gallery=gallery, threads=1, progress=False)
    with Searcher(folder / "model.plan", gallery=gallery, threads=1) as searcher:
        assert_equal(searcher.query(TEXT, 12), literal(searcher, TEXT, background))


def test_the_probability_is_that_of_corrected_scores(copied, background):
    plan = Plan(copied)
    own = replace(background, match_probability=PROBABILITY)
    manifest = replace(plan.manifest, match_probability=PROBABILITY.to_dict())
    plan.rewrite(copied, manifest, {BACKGROUND: own.to_bytes()})
    for is_on in (True, False):
        with Searcher(copied, threads=1, hub_correction=is_on) as searcher:
            scores = literal(searcher, TEXT, background if is_on else None)
            values = np.array([score for _, score in scores])
            logits = (
                -1
                + 6 * values
                + 0.8 * (values - values.mean()) / values.std()
                - 0.3 * np.log(12)
                + 0.5 * (values.max() - values)
            )
            got = [match.probability for match in searcher.query(TEXT, 12)]
            assert got == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-4)
