from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.errors import EvaluationError
from finegrain.evaluation.decisions import at_threshold, brier_score, fnir_at_fpir, ndcg_at_k
from finegrain.evaluation.hub_correction import HubCorrection
from finegrain.evaluation.match_probability import MatchProbability, fit
from finegrain.evaluation.open_set import judge, open_set_of, scores_of
from finegrain.evaluation.strangers import strangers_of
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
    assert result.thresholds == ()
    assert "no calibration" in str(result)
    with pytest.raises(EvaluationError, match="no probability to plot"):
        result.plot(tmp_path / "x.png")


def test_strangers_of_one_kind_have_rows_of_their_own(split, model):
    """Pictures of a caption's own camera are near its person, as in one scene."""
    samples = [
        replace(sample, camera=f"gate-{n // 2 % 2}", captions=(str(n), f"coat {n // 2 % 5}"))
        for n, sample in enumerate(split.samples)
    ]
    cameras = Split(name="test", samples=tuple(samples))
    result = open_set_of(Drawn(), cameras, model)
    by_kind = {at.strangers: at.size for at in result.rates if at.score == "cosine"}
    assert by_kind == {"all": 118, "easy": 60, "hard": 58}
    scores, right = scores_of(Drawn(), cameras)
    easy = strangers_of(samples, right)["easy"]
    judged = judge(scores, right, [60], model, easy)
    expected = fnir_at_fpir(
        judged.cosine[judged.present], judged.right[judged.present],
        judged.cosine[~judged.present], 0.1,
    )  # fmt: skip
    (row,) = [at for at in result.rates if (at.strangers, at.score) == ("easy", "cosine")]
    assert row.fnir[0.1] == expected
    assert "hard" in str(result)
    assert "easy" not in str(open_set_of(Drawn(), split, model))


def test_precision_and_recall_are_measured_at_thresholds(split, model):
    result = open_set_of(Drawn(), split, model)
    scores, right = scores_of(Drawn(), split)
    judged = [judge(scores, right, [size], model) for size in (100, 118)]
    values = np.concatenate([j.probability for j in judged])
    flags, present = (np.concatenate([getattr(j, n) for j in judged]) for n in ("right", "present"))
    assert [row.threshold for row in result.thresholds] == [0.25, 0.5, 0.75, 0.9]
    assert result.thresholds[1] == at_threshold(values, flags, present, 0.5)
    recalls = [row.recall for row in result.thresholds]
    assert recalls == sorted(recalls, reverse=True)
    assert "F1" in str(result)


def test_hub_correction_enters_the_scores(split):
    bank = Drawn().encode_texts([str(n) for n in range(40)])
    correction = HubCorrection(bank, 0.5, 8)
    scores, _ = scores_of(Drawn(), split)
    corrected, _ = scores_of(Drawn(), split, correction)
    images = Drawn().encode_images([sample.image for sample in split.samples])
    np.testing.assert_allclose(corrected, scores + correction.biases(images))
    result = open_set_of(Drawn(), split, None, correction=correction)
    assert result.is_corrected
    assert "scores include hub correction" in str(result)
    assert result.rates != open_set_of(Drawn(), split, None).rates


def test_a_plot_that_cannot_be_written_is_an_error(split, model, tmp_path):
    with pytest.raises(EvaluationError, match="the plot cannot be written"):
        open_set_of(Drawn(), split, model).plot(tmp_path / "none" / "x.png")
    with pytest.raises(EvaluationError, match="the plot cannot be written"):
        open_set_of(Drawn(), split, model).plot(tmp_path / "x.none")


def test_the_plot_is_written(split, model, tmp_path):
    open_set_of(Drawn(), split, model).plot(tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_a_split_that_is_too_small_is_refused(model):
    with pytest.raises(EvaluationError, match="got 38"):
        open_set_of(Drawn(), made(40), model)


@pytest.mark.slow
def test_the_command_measures_an_open_set(tiny_plan, tmp_path, monkeypatch, capsys):
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
