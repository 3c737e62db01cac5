from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finegrain.cli.parser import main
from finegrain.evaluation.decisions import AtThreshold, ReliabilityBin
from finegrain.evaluation.evaluation import Evaluation
from finegrain.evaluation.measured_runs import MeasuredRuns
from finegrain.evaluation.open_set import AtSize, OpenSet
from finegrain.metrics import RetrievalMetrics

METRICS = RetrievalMetrics.from_ranks([[1], [2]], num_gallery=4)


def measured(*briers: float) -> MeasuredRuns:
    decisions = OpenSet(
        split="test",
        rates=(
            AtSize(size=100, score="cosine", fnir={0.01: 0.6, 0.1: 0.5}, without_threshold=0.2),
        ),
        bins=(ReliabilityBin(0.2, 0.3, 5), ReliabilityBin(0.8, 0.7, 5)),
        thresholds=(AtThreshold(0.5, 0.75, 0.5, 0.6),),
    )
    evaluation = Evaluation(
        split="test", text_to_image=METRICS, image_to_text=METRICS, hub_corrected=METRICS,
        corrected_by="a bank",
    )  # fmt: skip
    return MeasuredRuns(
        runs=tuple(Path(f"s{n}") for n in range(len(briers))),
        evaluations=(evaluation,) * len(briers),
        decisions=tuple(replace(decisions, brier=brier) for brier in briers),
    )


def test_numbers_have_a_mean_and_a_deviation_over_runs():
    text = str(measured(0.1, 0.2))
    assert "test split, 2 runs" in text
    for name, value in {
        "rank1 with hub correction": "50.000 ± 0.000",
        "rank1 without hub correction": "50.000 ± 0.000",
        "FNIR at FPIR 10 %, 100 pictures, all strangers, cosine": "50.000 ± 0.000",
        "precision at probability 0.5": "75.000 ± 0.000",
        "F1 at probability 0.5": "60.000 ± 0.000",
        "Brier score": "0.150 ± 0.071",
    }.items():
        (line,) = [line for line in text.splitlines() if line.startswith(name)]
        assert line.endswith(value)
    assert "±" not in str(measured(0.1)).splitlines()[2]


def test_the_numbers_are_json_and_a_plot(tmp_path):
    both = measured(0.1, 0.2)
    assert json.loads(json.dumps(both.to_dict()))["decisions"][1]["brier"] == 0.2
    both.plot(tmp_path / "decisions.png")
    assert (tmp_path / "decisions.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_measures_runs_of_one_recipe(tmp_path, tiny_recipe, monkeypatch, capsys):
    for seed, lr in ((0, 1e-3), (1, 1e-3), (2, 2e-3)):
        recipe = replace(tiny_recipe, seed=seed, optimizer=replace(tiny_recipe.optimizer, lr=lr))
        (tmp_path / f"s{seed}").mkdir()
        (tmp_path / f"s{seed}" / "recipe.json").write_text(recipe.to_json())
    monkeypatch.chdir(tmp_path)
    asked = []

    def measure_runs(runs):
        asked.append([run.name for run in runs])
        return measured(0.1, 0.2)

    monkeypatch.setattr("finegrain.evaluation.measured_runs.measure_runs", measure_runs)
    command = ["report", "s0", "s1", "--decisions", "--plot", "d.png", "--json", "d.json"]
    assert main(command) == 0
    assert asked == [["s0", "s1"]]
    assert "Brier score" in capsys.readouterr().out
    assert Path("d.png").is_file()
    assert len(json.loads(Path("d.json").read_text())["runs"]) == 2
    assert main(["report", "s0", "s2", "--decisions"]) == 1
    assert "runs of one recipe" in capsys.readouterr().err
    assert main(["report", "s0", "--plot", "d.png"]) == 1
    assert "also give --decisions" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_run_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sizes = ["data.train=30", "data.val=30", "data.test=90", f"data.root={tmp_path / 'data'}"]
    overrides = [option for size in sizes for option in ("--set", size)]
    assert main(["train", "tiny_synthetic", "--tiny", "-o", "run", *overrides]) == 0
    assert main(["report", "run", "--decisions"]) == 0
    shown = capsys.readouterr().out
    assert "rank1 with hub correction" in shown
    assert "hard strangers" in shown
