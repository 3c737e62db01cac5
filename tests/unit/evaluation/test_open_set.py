from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.errors import EvaluationError
from finegrain.evaluation.decisions import brier_score, fnir_at_fpir, ndcg_at_k
from finegrain.evaluation.match_probability import MatchProbability, fit
from finegrain.evaluation.open_set import judge, open_set_of, scores_of
from finegrain.records import Sample, Split

NUM_PIDS, DIM = 60, 16
COLORS = ("red", "blue", "green")


class Drawn:
    """Pictures and captions of an identity are near one vector."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._people = random.standard_normal((NUM_PIDS, DIM))

    def _near(self, number: int, seed: int, noise: float) -> np.ndarray:
        random = np.random.default_rng(seed)
        vector = self._people[number // 2] + noise * random.standard_normal(DIM)
        return vector / np.linalg.norm(vector)

    def encode_images(self, sources, *, progress=False):
        return np.array([self._near(int(p.stem), int(p.stem), 0.6) for p in sources], np.float32)

    def encode_texts(self, captions, *, progress=False):
        return np.array([self._near(int(c), 1000 + int(c), 1.0) for c in captions], np.float32)


def made(num: int, *, columns: bool = True) -> Split:
    samples = [
        Sample(
            image=Path(f"{n}.jpg"),
            captions=(str(n), "0"),
            pid=n // 2,
            metadata={"color": COLORS[n % 3], "sku": f"s{n}"} if columns else {},
        )
        for n in range(num)
    ]
    return Split(name="test", samples=tuple(samples))


@pytest.fixture(scope="module")
def split() -> Split:
    return made(2 * NUM_PIDS)


@pytest.fixture(scope="module")
def model(split) -> MatchProbability:
    return fit(*scores_of(Drawn(), split))


def test_right_pictures_are_those_of_the_identity(split):
    scores, right = scores_of(Drawn(), split)
    assert scores.shape == right.shape == (120, 120)
    assert right[7].nonzero()[0].tolist() == [6, 7]


def test_half_of_the_queries_have_no_right_picture(split, model):
    judged = judge(*scores_of(Drawn(), split), [50, 100], model)
    assert judged.present.sum() == 120
    assert not judged.right[~judged.present].any()
    assert np.all((judged.probability >= 0) & (judged.probability <= 1))


def test_the_report_has_the_rates_of_each_score(split, model):
    scores, right = scores_of(Drawn(), split)
    result = open_set_of(Drawn(), split, model, calibrated_on="the split val")
    assert [(at.size, at.score) for at in result.rates] == [
        (100, "cosine"), (100, "probability"), (118, "cosine"), (118, "probability")
    ]  # fmt: skip
    judged = judge(scores, right, [100], model)
    present = judged.present
    expected = fnir_at_fpir(
        judged.cosine[present], judged.right[present], judged.cosine[~present], 0.1
    )
    assert result.rates[0].fnir[0.1] == expected
    assert result.rates[0].without_threshold <= result.rates[0].fnir[0.01]
    both = [judged, judge(scores, right, [118], model)]
    assert result.brier == brier_score(
        np.concatenate([j.probability for j in both]), np.concatenate([j.right for j in both])
    )
    assert result.brier < result.brier_of_a_constant
    assert len(result.bins) == 10
    text = str(result)
    assert "FNIR at FPIR 1 %" in text
    assert "calibrated on the split val" in text
    assert json.loads(json.dumps(result.to_dict()))["bins"][0].keys() == {
        "probability", "right", "num"
    }  # fmt: skip


def test_ndcg_grades_pictures_by_the_columns_that_they_share(split, model):
    scores, _ = scores_of(Drawn(), split)
    expected = []
    for n, row in enumerate(scores):
        # "sku" is no attribute, since no value of it repeats
        grades = [float(COLORS[m % 3] == COLORS[n % 3]) for m in range(120)]
        order = sorted(range(120), key=lambda m: -row[m])[:10]
        expected.append(ndcg_at_k([grades[m] for m in order], grades, 10))
    result = open_set_of(Drawn(), split, model)
    assert result.ndcg == pytest.approx(np.mean(expected))
    assert open_set_of(Drawn(), made(120, columns=False), model).ndcg is None


def test_without_calibration_there_are_rates_of_the_cosine_only(split, tmp_path):
    result = open_set_of(Drawn(), split, None)
    assert {at.score for at in result.rates} == {"cosine"}
    assert result.brier is None
    assert "no calibration" in str(result)
    with pytest.raises(EvaluationError, match="no probability to plot"):
        result.plot(tmp_path / "x.png")


def test_the_plot_is_written(split, model, tmp_path):
    open_set_of(Drawn(), split, model).plot(tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_a_split_that_is_too_small_is_refused(model):
    with pytest.raises(EvaluationError, match="got 38"):
        open_set_of(Drawn(), made(40), model)


@pytest.mark.slow
def test_the_command_measures_an_open_set(tiny_plan, tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    from finegrain.plan import Plan

    monkeypatch.chdir(tmp_path)
    plan = Plan(tiny_plan)
    recipe = json.loads(json.dumps(plan.manifest.recipe))
    recipe["data"].update(train=2, val=30, test=30, root=str(tmp_path / "data"))
    plan.rewrite(tmp_path / "m.plan", replace(plan.manifest, recipe=recipe))
    command = ["evaluate", "m.plan", "--split", "test", "--open-set", "--json", "m.json"]
    assert main([*command, "--plot", "m.png"]) == 0
    assert "calibrated on the split val" in capsys.readouterr().out
    assert json.loads(Path("m.json").read_text())["calibrated_on"] == "the split val"
    assert Path("m.png").is_file()
    plan = Plan(tmp_path / "m.plan")
    coefficients = {"intercept": 0, "score": 1, "z": 1, "log_size": 0, "below_best": 0}
    plan.rewrite(tmp_path / "m.plan", replace(plan.manifest, match_probability=coefficients))
    assert main(command) == 0
    assert "calibrated on the plan's queries" in capsys.readouterr().out


def test_a_plot_without_an_open_set_is_refused(tiny_plan, capsys):
    assert main(["evaluate", str(tiny_plan), "--plot", "x.png"]) == 1
    assert "also give --open-set" in capsys.readouterr().err
