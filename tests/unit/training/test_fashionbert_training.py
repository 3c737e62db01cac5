"""FashionBERT in the training loop, and its sub-categories."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from finegrain.errors import RecipeError
from finegrain.methods import FashionBertConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.models.joint_bert import BertConfig
from finegrain.models.patches import PatchConfig
from finegrain.recipe import recipe_from_dict
from finegrain.records import Split
from finegrain.runs.checkpoint import MODEL, last_checkpoint
from finegrain.runs.run import load_run
from finegrain.training import loop, train
from finegrain.training.distributed import World
from finegrain.training.loader import SUBCATEGORY, Pairs

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture
def fashionbert(recipe):
    method = FashionBertConfig(
        image=VitConfig(height=32, width=16, patch=8, channels=32, depth=1, heads=2),
        text=TextConfig(context_length=16, channels=16, depth=1, heads=2),
        embed_dim=16,
        patches=PatchConfig().tiny(),
        joint=BertConfig(channels=16, depth=1, heads=2),
        masked_patches=1,
    )
    losses = {"sdm": 1.0, "tia": 1.0, "mlm": 1.0, "mpm": 1.0}
    schedule = replace(recipe.schedule, steps=6)
    return replace(recipe, method=method, losses=losses, schedule=schedule)


def test_a_run_is_trained_and_loaded(fashionbert, tmp_path):
    assert recipe_from_dict(fashionbert.to_dict(), "its JSON") == fashionbert
    run = train(fashionbert, tmp_path, progress=False)
    assert run.losses[-1] < run.losses[0]
    _, method, _ = load_run(tmp_path)
    saved = load_file(last_checkpoint(tmp_path) / MODEL)
    assert torch.equal(saved["match_head.weight"], method.match_head.weight)


def test_files_of_weights_are_read_only_at_the_start_of_a_run(fashionbert, tmp_path):
    backbone = timm.create_model("test_resnet", num_classes=0)
    weights = tmp_path / "patches.safetensors"
    save_file(backbone.state_dict(), weights)
    patches = replace(fashionbert.method.patches, frozen=True)
    method = replace(fashionbert.method, patches=patches, patch_weights=str(weights))
    train(replace(fashionbert, method=method), tmp_path / "run", stop_after=2, progress=False)
    weights.unlink()
    _, loaded, _ = load_run(tmp_path / "run")
    own = loaded.patches.backbone.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in backbone.state_dict().items())
    nameless = replace(method, patch_weights=None)
    with pytest.raises(RecipeError, match="these would be random"):
        train(replace(fashionbert, method=nameless), tmp_path / "other", progress=False)


def test_three_and_three_resumed_steps_equal_six(fashionbert, tmp_path):
    straight = train(fashionbert, tmp_path / "straight", progress=False)
    first = train(fashionbert, tmp_path / "resumed", stop_after=3, progress=False)
    second = train(fashionbert, tmp_path / "resumed", resume=True, progress=False)
    assert first.losses + second.losses == straight.losses


def test_wrong_captions_of_a_sub_category_are_resumed(fashionbert, tmp_path, monkeypatch):
    """They depend on seed, epoch and item only, and a resumed run has these."""
    splits = fashionbert.data.splits()
    samples = tuple(
        replace(
            sample,
            metadata={SUBCATEGORY: ("even", "odd")[sample.pid % 2]},
            captions=(f"product {sample.pid} worn", f"product {sample.pid}"),
        )
        for sample in splits["train"].samples
    )
    known = splits | {"train": Split(name="train", samples=samples)}
    monkeypatch.setattr(type(fashionbert.data), "splits", lambda _: known)
    method = replace(fashionbert.method, negatives="subcategory")
    recipe = replace(fashionbert, method=method)
    trainer = loop._Trainer(recipe, tmp_path, ALONE, progress=False)
    told = {caption: sample.pid for sample in samples for caption in sample.captions}
    ids_of = {caption: trainer.tokenizer.encode([caption]).ids[0].tolist() for caption in told}
    pid_of = {tuple(ids_of[caption]): pid for caption, pid in told.items()}
    numbered = sorted({sample.pid for sample in samples})
    seen = 0
    trainer.order.start_at(0, 0)
    for batch in trainer.loader:
        for ids, eot, number in zip(batch.wrong_ids, batch.wrong_eot, batch.pids, strict=True):
            pid = pid_of[tuple(ids[: eot + 1].tolist())]
            own = numbered[int(number)]
            assert pid != own
            assert pid % 2 == own % 2
            seen += 1
    assert seen == 64
    straight = train(recipe, tmp_path / "straight", progress=False)
    first = train(recipe, tmp_path / "resumed", stop_after=3, progress=False)
    second = train(recipe, tmp_path / "resumed", resume=True, progress=False)
    assert first.losses + second.losses == straight.losses


def test_sub_categories_are_numbered_for_each_item(fashionbert, tmp_path):
    plain = fashionbert.data.splits()["train"]
    names = ("TOPS", None, "JEANS")
    told = tuple(
        replace(sample, metadata={} if name is None else {SUBCATEGORY: name})
        for sample, name in zip(plain.samples, names, strict=False)
    )
    split = Split(name="train", samples=told)
    assert Pairs(plain, None, None, seed=0).groups is None
    assert Pairs(split, None, None, seed=0).groups.tolist() == [2, 2, 0, 0, 1, 1]
    assert Pairs(split, None, None, captions=2, seed=0).groups.tolist() == [2, 0, 1]


def test_sub_categories_reach_the_method(fashionbert, tmp_path, monkeypatch):
    splits = fashionbert.data.splits()
    samples = tuple(
        replace(sample, metadata={SUBCATEGORY: "odd" if sample.pid % 2 else "even"})
        for sample in splits["train"].samples
    )
    known = splits | {"train": Split(name="train", samples=samples)}
    monkeypatch.setattr(type(fashionbert.data), "splits", lambda _: known)
    trainer = loop._Trainer(fashionbert, tmp_path, ALONE, progress=False)
    trainer.order.start_at(0, 0)
    batch = next(iter(trainer.loader))
    assert batch.groups.tolist() == [1 + pid % 2 for pid in batch.pids.tolist()]
    parts = loop.parts_of(batch, 2)
    assert torch.equal(torch.cat([part.groups for part in parts]), batch.groups)
    assert torch.equal(loop.moved(batch, ALONE.device).groups, batch.groups)
