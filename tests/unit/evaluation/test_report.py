from __future__ import annotations

import json
from dataclasses import replace
from statistics import stdev

import pytest

from finegrain.errors import EvaluationError
from finegrain.evaluation.report import LAST, ON_TEST, ON_VALIDATION, append_metrics, report
from finegrain.recipe import load_recipe


@pytest.fixture
def run(tmp_path, tiny_recipe):
    """Makes a run folder with metrics by split and step, given as rank1."""

    def make(name="run", seed=0, lr=1e-3, **by_split):
        folder = tmp_path / name
        folder.mkdir()
        optimizer = replace(tiny_recipe.optimizer, lr=lr)
        recipe = replace(tiny_recipe, name=name, seed=seed, optimizer=optimizer)
        (folder / "recipe.json").write_text(recipe.to_json())
        for split, by_step in by_split.items():
            for step, rank1 in by_step.items():
                metrics = {"rank1": rank1, "rank5": 80.0, "rank10": 90.0, "mAP": 50.0, "mINP": 9.0}
                append_metrics(folder, step=step, split=split, metrics=metrics)
        return folder

    return make


def reached(*runs):
    """Maps a rule to its step and rank1, for the first run."""
    return {r.rule: (r.step, r.metrics["rank1"]) for r in report(runs).reached[0]}


def test_validation_selects_the_epoch_and_test_is_reported(run):
    one = run(val={10: 60.0, 20: 70.0, 30: 65.0}, test={10: 72.0, 20: 68.0, 30: 71.0})
    assert reached(one) == {ON_VALIDATION: (20, 68.0), ON_TEST: (10, 72.0)}


def test_the_earliest_of_equal_epochs_is_selected(run):
    one = run(val={20: 70.0, 10: 70.0}, test={20: 68.0, 10: 68.0})
    assert reached(one) == {ON_VALIDATION: (10, 68.0), ON_TEST: (10, 68.0)}


def test_without_validation_the_last_epoch_is_selected(run):
    assert reached(run(test={10: 72.0, 20: 71.0})) == {LAST: (20, 71.0), ON_TEST: (10, 72.0)}


def test_the_last_evaluation_of_a_step_counts(run):
    one = run(val={10: 60.0}, test={10: 50.0})
    append_metrics(one, step=10, split="test", metrics=dict.fromkeys(
        ("rank1", "rank5", "rank10", "mAP", "mINP"), 55.0
    ))  # fmt: skip
    assert reached(one)[ON_TEST] == (10, 55.0)


def test_the_report_tells_how_to_measure_an_expected_re_ranking(run):
    one = run(test={10: 72.0})
    assert "rerank" not in str(report([one]))
    expected = '{"rank1": 76.5, "source": "a paper", "rerank_k": 128, "rerank_by": "match"}'
    changed = load_recipe(one, [f"expected={expected}"])
    (one / "recipe.json").write_text(changed.to_json())
    assert str(report([one])).endswith(
        f"finegrain evaluate {one} --split test --rerank-k 128 --rerank-by match"
    )


def test_seeds_give_a_mean_and_a_standard_deviation(run):
    runs = [
        run(f"s{s}", seed=s, val={5: 1.0}, test={5: rank1}) for s, rank1 in enumerate((70, 72, 77))
    ]
    text = str(report(runs))
    assert "3 runs, mean ± deviation" in text
    assert f"73.00 ± {stdev((70, 72, 77)):.2f}" in text
    assert "50.00 ± 0.00" in text
    kept = report(runs).to_dict()
    assert kept["text_to_image"][ON_TEST]["rank1"] == [70, 72, 77]
    json.dumps(kept)


def test_one_run_has_no_standard_deviation(run):
    assert "±" not in str(report([run(val={5: 1.0}, test={5: 70.0})]))


def test_runs_of_different_recipes_have_no_mean(run):
    runs = [run("a", test={1: 70.0}), run("b", seed=1, lr=5e-3, test={1: 71.0})]
    with pytest.raises(EvaluationError, match=r"runs of one recipe.*optimizer\.lr"):
        report(runs)


def test_a_run_without_test_metrics_is_reported(run):
    with pytest.raises(EvaluationError, match="--set watch_test=true"):
        report([run(val={5: 70.0})])
    with pytest.raises(EvaluationError, match="--set watch_test=true"):
        report([run("empty")])


@pytest.mark.parametrize("line", ["no json", "[]", '{"step": 5, "split": "test"}'])
def test_a_damaged_log_is_an_error(run, line):
    one = run(test={5: 70.0})
    (one / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(EvaluationError, match=r"metrics\.jsonl is damaged"):
        report([one])
