"""From a recipe to search: training, evaluation, export and queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import finegrain
from finegrain.data.datasets import SyntheticPeople, take_split
from finegrain.exporters import load_profile

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    recipe = finegrain.load_recipe(ROOT / "recipes" / "tiny_synthetic.py").tiny()
    people = tmp_path_factory.mktemp("road") / "people"
    data = SyntheticPeople(root=str(people), train=40, val=10, test=10, pictures_per_identity=3)
    return replace(recipe, data=data)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    return finegrain.train(recipe, tmp_path_factory.mktemp("run"), progress=False)


@pytest.fixture(scope="module")
def plan(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "model.plan"
    profile = load_profile(ROOT / "export" / "onnx_fp32.py")
    report = finegrain.export(run.folder, profile, path)
    assert report.rank1_agreement >= 0.99
    return path


def test_a_run_and_its_plan_have_equal_metrics(run, plan):
    eager = finegrain.evaluate(run.folder, split="test", progress=False)
    exported = finegrain.evaluate(plan, split="test", progress=False)
    assert eager.text_to_image.num_queries >= 40
    for direction in ("text_to_image", "image_to_text"):
        expected = getattr(eager, direction).to_dict()
        got = getattr(exported, direction).to_dict()
        assert got == pytest.approx(expected, abs=0.5)


def test_the_exported_plan_searches_pictures(recipe, plan):
    test = take_split(recipe.data.splits(), "test")
    with finegrain.Searcher(plan) as searcher:
        added = searcher.add_samples(test.samples, progress=False)
        assert (len(added.ids), added.problems) == (len(test), [])
        matches = searcher.query("woman in red coat", k=5)
        scores = [match.score for match in matches]
        assert [match.rank for match in matches] == [1, 2, 3, 4, 5]
        assert scores == sorted(scores, reverse=True)
        sample = test.samples[3]
        best = next(iter(searcher.query(sample.image, k=1)))
        assert best.image == str(sample.image)
        assert best.pid == sample.pid
        assert best.score == pytest.approx(1, abs=1e-4)
        of_one = searcher.query("coat", where=f"pid = {sample.pid}")
        assert {match.pid for match in of_one} == {sample.pid}


def test_the_gallery_beside_the_plan_is_opened_again(recipe, plan):
    test = take_split(recipe.data.splits(), "test")
    with finegrain.Searcher(plan) as searcher:
        added = searcher.add([sample.image for sample in test.samples], progress=False)
        assert len(searcher.gallery) == len(test)
        assert len(added.ids) + added.num_known == len(test)
