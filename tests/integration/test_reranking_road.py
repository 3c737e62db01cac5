"""Training, export and search of a method with a match head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import finegrain
from finegrain.data.datasets import SyntheticPeople, take_split
from finegrain.errors import EvaluationError
from finegrain.evaluation.reranking import score_candidates
from finegrain.exporters import load_profile
from finegrain.runs.run import eager_encoder, load_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = finegrain.load_recipe(ROOT / "recipes" / "rasa_synthetic.py").tiny()
    people = tmp_path_factory.mktemp("rasa_road") / "people"
    data = SyntheticPeople(root=str(people), train=40, val=30, test=10, pictures_per_identity=4)
    return finegrain.train(
        replace(recipe, data=data), tmp_path_factory.mktemp("rasa"), progress=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu_int8", "onnx_fp32"])
def test_the_match_head_is_in_the_plan(run, name, tmp_path):
    profile = load_profile(ROOT / "export" / f"{name}.py")
    # Untrained embeddings are close together, so int8 reorders those that fp32 can hardly separate.
    loose = replace(profile, min_overlap=0.5, min_rank1_agreement=0.3, max_drift=20.0)
    report = finegrain.export(run.folder, loose, tmp_path / "model.plan")
    assert report.match is not None
    assert report.match.probability_error < 0.05
    assert "re-ranking" in str(report)

    recipe = finegrain.load_recipe(run.folder)
    samples = take_split(recipe.data.splits(), "test").samples
    with finegrain.Searcher(tmp_path / "model.plan", rerank="match", rerank_k=16) as searcher:
        searcher.add_samples(samples, progress=False)
        assert searcher.prepare(progress=False).num_encoded == len(samples)
        result = searcher.query(samples[0].captions[0], 5)
    with finegrain.Searcher(
        tmp_path / "model.plan", rerank="match", rerank_k=16, rerank_by="match"
    ) as searcher:
        alone = searcher.query(samples[0].captions[0], 5)
    assert all(match.match is not None for match in alone)
    assert len(result) == 5
    assert any(match.match is not None for match in result)
    assert searcher.manifest.precision["match.onnx"] == profile.match.name


def test_retrieval_and_re_ranking_are_evaluated(run):
    result = finegrain.evaluate(run.folder, split="test", rerank_k=8, progress=False)
    assert result.reranked is not None
    assert result.reranked.num_queries == result.text_to_image.num_queries
    assert "reranked" in str(result)
    assert "reranked" in result.to_dict()
    assert result.to_dict()["reranked_by"].startswith("cosine + ")


def test_evaluation_can_re_rank_by_the_match_logit_alone(run):
    """As in RaSa's paper, with the eager model and with its plan."""
    result = finegrain.evaluate(
        run.folder, split="test", rerank_k=8, rerank_by="match", progress=False
    )
    assert result.reranked_by == "the match logit alone, the first 8"
    assert "the match logit alone" in str(result)
    recipe, method, _ = load_run(run.folder)
    samples = take_split(recipe.data.splits(), "test").samples
    stage = score_candidates(eager_encoder(recipe, method, torch.device("cpu")), samples, depth=8)
    assert not np.allclose(stage.logits, stage.scores), "RaSa's scores are not its log-odds"
    assert result.reranked == stage.match_metrics()


def test_re_ranking_by_match_needs_a_depth(run):
    with pytest.raises(EvaluationError, match="also set how many: rerank_k=128"):
        finegrain.evaluate(run.folder, rerank_by="match")
    with pytest.raises(EvaluationError, match="'both' or 'match', got 'cosine'"):
        finegrain.evaluate(run.folder, rerank_k=8, rerank_by="cosine")
