from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest

from finegrain.data.datasets import Catalog
from finegrain.encoder import Encoder
from finegrain.errors import (
    CheckpointError,
    DataError,
    EvaluationError,
    FinegrainError,
    ImageError,
    PlanError,
)
from finegrain.evaluation.background import Background
from finegrain.evaluation.evaluation import evaluate, evaluate_split
from finegrain.metrics import retrieval_metrics
from finegrain.plan import BACKGROUND, Plan
from finegrain.records import Sample, Split

NUM_PIDS = 4


@dataclass
class Perfect:
    """An encoder whose embeddings of pictures and captions are one-hot by identity."""

    wrong: int = 0

    def encode_images(self, sources, *, progress=False):
        return np.eye(NUM_PIDS, dtype=np.float32)[[int(source.stem) // 2 for source in sources]]

    def encode_texts(self, captions, *, progress=False):
        pids = [(int(caption) + (i < self.wrong)) % NUM_PIDS for i, caption in enumerate(captions)]
        return np.eye(NUM_PIDS, dtype=np.float32)[pids]


@pytest.fixture
def split(crops) -> Split:
    """Two pictures of each identity, with one and two captions."""
    samples = [
        Sample(image=crops / f"{n:02d}.jpg", captions=(str(n // 2),) * (1 + n % 2), pid=n // 2)
        for n in range(2 * NUM_PIDS)
    ]
    return Split(name="val", samples=tuple(samples))


@pytest.fixture
def catalog(crops, tmp_path) -> Catalog:
    """The crops as a dataset of two splits."""
    shutil.copytree(crops, tmp_path / "images")
    rows = [f"{p.name},caption {i},{i // 2},{'val' if i < 6 else 'test'}" for i, p in
            enumerate(sorted((tmp_path / "images").iterdir()))]  # fmt: skip
    table = tmp_path / "catalog.csv"
    table.write_text("\n".join(["image,caption,product,part", *rows]).replace("\n0", "\nimages/0"))
    table.write_text(table.read_text().replace("\n1", "\nimages/1"))
    return Catalog(table=str(table), pid_column="product", split_column="part")


@pytest.fixture(scope="module")
def encoder(tiny_plan) -> Encoder:
    return Encoder.from_plan(Plan(tiny_plan), threads=1)


def test_a_perfect_model_is_perfect_in_both_directions(split):
    evaluation = evaluate_split(Perfect(), split)
    for metrics in (evaluation.text_to_image, evaluation.image_to_text):
        assert (metrics.rank1, metrics.mAP, metrics.mINP) == (100, 100, 100)
    assert evaluation.split == "val"


def test_captions_belong_to_the_identity_of_their_picture(split):
    """Three of twelve captions describe someone else."""
    evaluation = evaluate_split(Perfect(wrong=3), split)
    assert evaluation.text_to_image.rank1 == pytest.approx(75)


def test_metrics_equal_those_of_all_embeddings(encoder, split):
    evaluation = evaluate_split(encoder, split)
    images = encoder.encode_images([sample.image for sample in split.samples])
    captions = [(c, sample.pid) for sample in split.samples for c in sample.captions]
    texts = encoder.encode_texts([caption for caption, _ in captions])
    pids = np.array([sample.pid for sample in split.samples])
    wanted = retrieval_metrics(texts, images, np.array([pid for _, pid in captions]), pids)
    assert evaluation.text_to_image.to_dict() == wanted.to_dict()


def test_an_unreadable_picture_is_an_error(encoder, split, tmp_path):
    broken = Sample(image=tmp_path / "missing.jpg", captions=("x",), pid=0)
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        evaluate_split(encoder, Split(name="val", samples=(*split.samples, broken)))


def test_an_empty_split_is_refused(encoder):
    with pytest.raises(FinegrainError):
        evaluate_split(encoder, Split(name="val", samples=()))


def test_an_evaluation_prints_as_a_table_and_as_json(split):
    evaluation = evaluate_split(Perfect(), split)
    stated = json.loads(json.dumps(evaluation.to_dict()))
    assert stated["split"] == "val"
    assert stated["text_to_image"]["rank1"] == stated["image_to_text"]["rank1"] == 100
    assert "text to image" in str(evaluation)
    assert "rank1" in str(evaluation).splitlines()[0]


def test_a_plan_and_its_encoder_have_equal_metrics(tiny_plan, encoder, catalog):
    by_plan = evaluate(tiny_plan, catalog, progress=False)
    assert by_plan == evaluate(encoder, catalog, progress=False)
    assert by_plan.split == "val"


def test_a_plan_with_a_bank_is_evaluated_with_and_without_hub_correction(
    tiny_plan, encoder, catalog, tmp_path
):
    captions = encoder.encode_texts([f"a person with {n} bags" for n in range(20)])
    background = Background(
        captions=captions.astype(np.float16), weight=1.0, neighbours=8, source="captions"
    )
    plan = Plan(tiny_plan)
    corrected_plan = tmp_path / "corrected.plan"
    plan.rewrite(corrected_plan, plan.manifest, {BACKGROUND: background.to_bytes()})
    evaluation = evaluate(corrected_plan, catalog, progress=False)
    samples = catalog.splits()["val"].samples
    pids = np.array([int(sample.pid) for sample in samples])
    images = encoder.encode_images([sample.image for sample in samples])
    texts = encoder.encode_texts([sample.captions[0] for sample in samples])
    wanted = background.hub_correction.metrics(texts, images, pids, pids)
    assert evaluation.hub_corrected == wanted
    assert replace(evaluation, hub_corrected=None, corrected_by=None) == evaluate(
        tiny_plan, catalog, progress=False
    )
    assert "hub corrected" in str(evaluation)
    assert "1 x mean of the 8 greatest scores with 20 captions" in str(evaluation)
    assert {"hub_corrected", "corrected_by"} <= evaluation.to_dict().keys()


def test_the_test_split_is_used_only_when_named(encoder, catalog):
    assert evaluate(encoder, catalog, split="test", progress=False).split == "test"
    with pytest.raises(DataError, match=r"no split 'dev'; it has test, val"):
        evaluate(encoder, catalog, split="dev", progress=False)


def test_an_encoder_without_data_is_refused(encoder):
    with pytest.raises(EvaluationError, match="give one by data="):
        evaluate(encoder)


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(PlanError, match="there is no plan at"):
        evaluate(tmp_path / "model.plan")


def test_a_run_without_a_checkpoint_is_refused(tiny_recipe, tmp_path):
    (tmp_path / "recipe.json").write_text(tiny_recipe.to_json())
    with pytest.raises(CheckpointError):
        evaluate(tmp_path)
