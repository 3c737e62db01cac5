"""The share of the global embedding is chosen on validation, and a plan can have it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import finegrain
from finegrain.cli.parser import main
from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError, ExportError
from finegrain.evaluation.evaluation import evaluate
from finegrain.evaluation.global_share import SHARES, GlobalShare, measure_shares
from finegrain.exporters import ExportProfile
from finegrain.methods import ItselfConfig
from finegrain.methods.itself import LOSSES
from finegrain.metrics import RetrievalMetrics
from finegrain.plan import Plan
from finegrain.runs.checkpoint import State, save_checkpoint
from finegrain.runs.run import eager_encoder, load_run


def write_run(folder, recipe):
    torch.manual_seed(0)
    method = recipe.method.build(list(recipe.losses))
    save_checkpoint(folder, State(), method, torch.optim.AdamW(method.parameters()))
    (folder / "recipe.json").write_text(recipe.to_json())
    return folder


@pytest.fixture(scope="module")
def run(tiny_recipe, tmp_path_factory):
    """A model with random weights, and 8 people of the validation split."""
    folder = tmp_path_factory.mktemp("runs")
    method = ItselfConfig(
        image=tiny_recipe.method.image,
        text=replace(tiny_recipe.method.text, context_length=32),
        global_dim=16,
        selected_dim=16,
        rollout=None,
        global_share=0.25,
    )
    data = replace(tiny_recipe.data, root=str(folder / "data"))
    recipe = replace(
        tiny_recipe, method=method, data=data, losses=dict.fromkeys(LOSSES, 1.0), weights=None
    )
    return write_run(folder / "itself", recipe)


def metrics_at(rank1, mean=0.0):
    return RetrievalMetrics(
        rank1=rank1, rank5=100, rank10=100, mAP=mean, mINP=0, num_queries=200, num_gallery=100
    )


def test_each_share_has_the_metrics_of_a_model_with_that_share(run):
    shares = measure_shares(run, progress=False)
    assert sorted({*SHARES, 0.25}) == list(shares.metrics)
    recipe, method, _ = load_run(run)
    method.config = replace(method.config, global_share=0.8)
    encoder = eager_encoder(recipe, method, torch.device("cpu"))
    metrics = evaluate(encoder, recipe.data, progress=False).text_to_image
    assert metrics == shares.metrics[0.8]
    assert shares.metrics[0.1] != shares.metrics[0.9]


def test_the_best_share_has_the_highest_rank1_then_map_then_is_nearest():
    metrics = {0.2: metrics_at(50), 0.4: metrics_at(60, 20), 0.6: metrics_at(60, 30)}
    shares = GlobalShare(split="val", current=0.5, metrics=metrics)
    assert shares.best == 0.6
    equal = replace(shares, metrics=dict.fromkeys((0.1, 0.6, 0.9), metrics_at(60, 30)))
    assert equal.best == 0.6
    assert "best share of the global embedding on val: 0.6" in str(shares)
    assert "standard error of rank1 with 200 captions is 3.5 points" in str(shares)


def test_the_test_split_is_refused(run):
    with pytest.raises(EvaluationError, match=r"got the test split.*--split val"):
        measure_shares(run, split="test")


def test_a_model_with_a_single_embedding_is_refused(tiny_recipe, tmp_path):
    folder = write_run(tmp_path / "clip", tiny_recipe)
    with pytest.raises(EvaluationError, match=r"two embeddings.*method clip"):
        measure_shares(folder)
    with pytest.raises(ExportError, match=r"two embeddings.*method clip"):
        finegrain.export(folder, ExportProfile(name="x"), tmp_path / "x.plan", global_share=0.5)


def test_the_command_prints_the_shares(run, capsys):
    assert main(["evaluate", str(run), "--shares"]) == 0
    assert "best share of the global embedding on val" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--shares", "--split", "test"]) != 0


def test_a_share_that_is_not_a_number_is_refused(run, tmp_path, capsys):
    out = str(tmp_path / "m.plan")
    assert main(["export", str(run), "-o", out, "--global-share", "most"]) != 0
    assert "--global-share best, or a number" in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_has_the_best_share(run, tmp_path, capsys):
    out = tmp_path / "model.plan"
    assert main(["export", str(run), "-o", str(out), "--global-share", "best"]) == 0
    best = measure_shares(run, progress=False).best
    assert f"on val: {best:g}" in capsys.readouterr().out
    assert Plan(out).manifest.recipe["method"]["global_share"] == best
    row = Encoder.from_plan(Plan(out)).encode_texts(["a woman in red"])[0]
    assert np.linalg.norm(row[:16]) == pytest.approx(best**0.5, abs=1e-5)
    assert main(["evaluate", str(out), "--shares"]) == 0
