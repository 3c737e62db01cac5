from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from finegrain.errors import CheckpointError, DataError, RecipeError, TrainingError
from finegrain.evaluation.evaluation import evaluate
from finegrain.methods import Clip
from finegrain.recipe import Augment, Optimizer, Schedule, load_recipe
from finegrain.runs.checkpoint import MODEL, OPTIMIZER, best_checkpoint, read_state
from finegrain.runs.vocabulary import read_vocabulary
from finegrain.training import loop, train
from finegrain.training.distributed import World

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def trainer(recipe, folder):
    return loop._Trainer(recipe, folder, ALONE, progress=False)


def first_batch(of):
    of.order.start_at(0, 0)
    return next(iter(of.loader))


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def test_accumulation_averages_the_gradients_of_parts(recipe, tmp_path, monkeypatch):
    """A contrastive loss compares the pairs of one part only, so this is not the gradient of the
    batch."""
    unclipped = replace(recipe, accumulate=2, optimizer=Optimizer(clip_norm=1e9))
    whole = trainer(unclipped, tmp_path)
    batch = first_batch(whole)
    monkeypatch.setattr(whole.optimizer, "step", lambda: None)
    sums = whole._step(batch, 0)
    got = gradients(whole.model)
    expected, losses = [], []
    for part in loop.parts_of(batch, 2):
        assert len(part.where) == len(part.pids) == 4
        whole.model.zero_grad()
        loss, _ = whole._losses(part, 0)
        torch.autograd.backward(loss)
        losses.append(loss.item())
        expected.append(gradients(whole.model))
    assert sums["itc"] == pytest.approx(np.mean(losses))
    for ours, first, second in zip(got, *expected, strict=True):
        torch.testing.assert_close(ours, (first + second) / 2, atol=1e-6, rtol=1e-5)


def test_parts_have_the_order_of_the_batch(recipe, tmp_path):
    batch = first_batch(trainer(recipe, tmp_path))
    parts = loop.parts_of(batch, 4)
    assert torch.equal(torch.cat([part.pixels for part in parts]), batch.pixels)
    assert torch.equal(torch.cat([part.ids for part in parts]), batch.ids)
    assert torch.equal(torch.cat([part.eot for part in parts]), batch.eot)
    assert torch.equal(torch.cat([part.pids for part in parts]), batch.pids)
    assert sum((part.where for part in parts), ()) == batch.where


def test_gradients_are_clipped_to_the_norm_of_the_recipe(recipe, tmp_path, monkeypatch):
    clipped = trainer(replace(recipe, optimizer=Optimizer(clip_norm=1e-3)), tmp_path)
    monkeypatch.setattr(clipped.optimizer, "step", lambda: None)
    clipped._step(first_batch(clipped), 0)
    norm = torch.stack([grad.norm() for grad in gradients(clipped.model)]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)


def test_weights_of_losses_scale_the_total(recipe, tmp_path):
    plain = trainer(recipe, tmp_path)
    halved = trainer(replace(recipe, losses={"itc": 0.5}), tmp_path)
    batch = first_batch(plain)
    named = plain._step(batch, 0)
    assert halved._step(batch, 0) == named
    assert (plain.losses, halved.losses) == ([named["itc"]], [0.5 * named["itc"]])


def test_a_loss_that_is_not_finite_names_its_batch_and_changes_nothing(
    recipe, tmp_path, monkeypatch
):
    broken = trainer(replace(recipe, batch_size=16), tmp_path)
    batch = first_batch(broken)
    broken._step(batch, 0)
    before = {name: tensor.clone() for name, tensor in broken.model.state_dict().items()}
    monkeypatch.setattr(Clip, "forward", lambda self, batch: {"itc": self.logit_scale * np.nan})
    batch = replace(batch, where=tuple(f"{i}.png[0]" for i in range(16)))
    with pytest.raises(TrainingError) as raised:
        broken._step(batch, 1)
    message = str(raised.value)
    assert "step 1: the loss is not finite ({'itc': nan})" in message
    assert "0.png[0], 1.png[0]" in message
    assert "7.png[0] and 8 more." in message
    after = broken.model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_training_stops_at_a_loss_that_is_not_finite(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(Clip, "forward", lambda self, batch: {"itc": self.logit_scale * np.nan})
    with pytest.raises(TrainingError, match=r"step 0: .*train/\d+_\d\.png\[\d\]"):
        train(recipe, tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        best_checkpoint(tmp_path)


@pytest.mark.parametrize("losses", [{"sdm": 1.0}, {"itc": 1.0, "id": 1.0}])
def test_losses_that_the_method_does_not_compute_are_refused(losses, brief, tmp_path):
    with pytest.raises(RecipeError, match="CLIP computes the losses itc; the recipe asks for"):
        train(replace(brief, losses=losses), tmp_path, progress=False)


def test_the_temperature_is_bounded(brief, tmp_path):
    started = trainer(replace(brief, method=replace(brief.method, temperature=0.001)), tmp_path)
    started._step(first_batch(started), 0)
    assert started.model.logit_scale.exp().item() == pytest.approx(100)


def test_a_batch_larger_than_the_split_is_refused(brief, tmp_path):
    with pytest.raises(TrainingError, match=r"65 pairs in each of 1 processes.* has 64"):
        train(replace(brief, batch_size=65), tmp_path, progress=False)


def test_a_dataset_without_a_training_split_is_refused(brief, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "1.png").touch()
    record = {"split": "val", "captions": ["a"], "file_path": "1.png", "id": 1}
    (root / "reid_raw.json").write_text(json.dumps([record]))
    recipe = replace(brief, data=replace(brief.data, root=str(root)))
    with pytest.raises(DataError, match="no split 'train'; it has val"):
        train(recipe, tmp_path / "run", progress=False)


def test_a_run_folder_has_recipe_metrics_and_curves(recipe, tmp_path):
    recipe = replace(recipe, schedule=Schedule(epochs=3, steps=20, evaluate_every=2))
    run = train(recipe, tmp_path, progress=False)
    assert (run.folder, run.steps, len(run.losses)) == (tmp_path, 20, 20)
    assert load_recipe(tmp_path) == recipe
    vocabulary = read_vocabulary(tmp_path)
    assert vocabulary is not None
    assert {"red", "cyan"} <= vocabulary.words.keys()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines] == [(16, "val"), (20, "val")]
    assert run.validation is not None
    assert lines[-1]["rank1"] == run.validation.text_to_image.rank1
    assert str(run.validation) in str(run)
    events = curves(tmp_path / "tensorboard")
    assert [step for step, _ in events["loss/itc"]] == list(range(1, 21))
    np.testing.assert_allclose([value for _, value in events["loss/total"]], run.losses, rtol=1e-6)
    assert {"lr", "val/rank1", "val/mAP"} <= events.keys()


def curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_the_best_checkpoint_is_kept_and_selected(recipe, tmp_path, monkeypatch):
    """The validation result is replaced, so that the second of three epochs is best."""
    rank1 = iter([30.0, 60.0, 50.0])
    evaluate_split = loop.evaluate_split

    def told(encoder, split, *, progress):
        result = evaluate_split(encoder, split)
        return replace(result, text_to_image=replace(result.text_to_image, rank1=next(rank1)))

    monkeypatch.setattr(loop, "evaluate_split", told)
    train(replace(recipe, schedule=Schedule(epochs=3)), tmp_path, progress=False)
    kept = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000016", "000024"]
    best = best_checkpoint(tmp_path)
    assert best.name == "000016"
    last = read_state(tmp_path / "checkpoints" / "000024")
    assert (last.step, last.best_step, last.best_rank1) == (24, 16, 60.0)
    assert {file.name for file in best.iterdir()} == {MODEL, OPTIMIZER, "state.json"}


def test_a_model_learns(recipe, tmp_path):
    """Pictures of uniform colours: captions of sixteen people are searched; the chance level is 6
    %."""
    recipe = replace(
        recipe,
        schedule=Schedule(epochs=30, evaluate_every=30),
        augment=Augment(flip=0.5, pad=0, erase=0),
        optimizer=Optimizer(lr=3e-3),
        batch_size=16,
    )
    run = train(recipe, tmp_path, progress=False)
    assert np.mean(run.losses[-4:]) < 0.5 * np.mean(run.losses[:4])
    assert run.validation is not None
    assert run.validation.text_to_image.rank1 > 50
    again = evaluate(tmp_path, progress=False)
    assert again.text_to_image == run.validation.text_to_image
