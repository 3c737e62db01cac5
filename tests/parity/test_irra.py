"""Comparison with IRRA's released code, on the same weights and batches.

The numbers come from that code, run once in fp32 on a CPU: features, every named loss, the norm of
its gradient, and twenty training steps. Weights and batches are drawn again here, from a generator
whose stream numpy keeps stable.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import finegrain
from finegrain.methods import Batch, IrraConfig
from finegrain.methods import irra as irra_module
from finegrain.methods.token_masking import MASK, Masked
from finegrain.models import TextConfig, VitConfig
from finegrain.recipe import Schedule
from finegrain.training.optim import lr_factor, make_optimizer, set_lr
from finegrain.zoo.loading import export_irra, load_clip_weights

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/irra/released_code.json").read_text())
SHAPES = GOLDEN["shapes"]
HEIGHT, WIDTH = SHAPES["image"]
CONFIG = IrraConfig(
    image=VitConfig(
        height=HEIGHT,
        width=WIDTH,
        patch=SHAPES["patch"],
        channels=SHAPES["vision_width"],
        depth=SHAPES["vision_layers"],
        heads=SHAPES["vision_width"] // 64,
    ),
    text=TextConfig(
        context_length=SHAPES["context"],
        channels=SHAPES["text_width"],
        depth=SHAPES["text_layers"],
        heads=SHAPES["text_heads"],
    ),
    embed_dim=SHAPES["embed_dim"],
    identities=SHAPES["identities"],
    fusion_depth=SHAPES["fusion_depth"],
)
PUBLISHED = ("sdm", "mlm", "id")


def is_gain(name):
    return name.endswith("weight") and any(part.startswith("ln") for part in name.split("."))


def load_drawn_weights(method, path):
    """Load the golden run's weights in the released layout."""
    draw = np.random.RandomState(SHAPES["seed"])
    layout = export_irra(CONFIG.build(("sdm", "id", "mlm")))
    state = {}
    for name in sorted(layout):
        drawn = 0.02 * draw.standard_normal(tuple(layout[name].shape)) + is_gain(name)
        state[name] = torch.from_numpy(drawn.astype(np.float32))
    torch.save({"model": state}, path)
    load_clip_weights(method, path)
    return method


def drawn_batch(number):
    draw, n = np.random.RandomState(1000 + number), SHAPES["batch"]
    pixels = draw.randint(0, 256, (n, 3, HEIGHT, WIDTH)).astype(np.uint8)
    ids = np.zeros((n, SHAPES["context"]), np.int64)
    targets, ends = np.zeros_like(ids), np.zeros(n, np.int32)
    for row in range(n):
        count = draw.randint(3, SHAPES["context"] - 2)
        ids[row, 0], ids[row, count + 1] = 49406, 49407
        ids[row, 1 : count + 1] = draw.randint(1, 49405, count)
        hidden = 1 + draw.permutation(count)[: max(1, count // 6)]
        targets[row, hidden] = ids[row, hidden]
        ids[row, hidden] = MASK
        ends[row] = count + 1
    pids = draw.randint(0, SHAPES["identities"], n)
    batch = Batch(
        pixels=torch.from_numpy(pixels),
        ids=torch.from_numpy(ids),
        eot=torch.from_numpy(ends),
        pids=torch.from_numpy(pids),
        items=torch.arange(n),
        where=("",) * n,
    )
    return batch, Masked(torch.from_numpy(ids), torch.from_numpy(targets))


@pytest.fixture
def run(monkeypatch):
    """Losses of a method on a golden batch, with the words masked as in the golden run."""

    def losses(method, number):
        batch, masked = drawn_batch(number)
        monkeypatch.setattr(irra_module, "mask_words", lambda ids, rate: masked)
        return method(batch)

    return losses


def test_features_equal_those_of_the_released_code(tmp_path):
    method = load_drawn_weights(CONFIG.build(PUBLISHED), tmp_path / "best.pth")
    batch, _ = drawn_batch(0)
    for features, golden in (
        (method.image_tower(batch.pixels), GOLDEN["image"]),
        (method.text_tower(batch.ids, batch.eot), GOLDEN["text"]),
    ):
        torch.testing.assert_close(features.detach(), torch.tensor(golden), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(GOLDEN["losses"]))
def test_a_loss_and_its_gradient_equal_those_of_the_released_code(name, run, tmp_path):
    method = load_drawn_weights(CONFIG.build(irra_module.LOSSES), tmp_path / "best.pth")
    loss = run(method, 0)[name]
    loss.backward()
    norm = torch.stack(
        [p.grad.double().norm() for p in method.parameters() if p.grad is not None]
    ).norm()
    assert loss.item() == pytest.approx(GOLDEN["losses"][name], rel=1e-5)
    assert norm.item() == pytest.approx(GOLDEN["gradient_norms"][name], rel=1e-5)


def test_twenty_steps_equal_those_of_the_released_code(run, tmp_path):
    """With the losses, optimiser rules and schedule of the committed recipe, at another rate."""
    told = GOLDEN["optimizer"]
    recipe = finegrain.load_recipe(ROOT / "recipes/irra_cuhk_pedes.py")
    assert set(recipe.losses.values()) == {1.0}
    method = load_drawn_weights(CONFIG.build(recipe.losses), tmp_path / "best.pth")
    optimizer = make_optimizer(method, replace(recipe.optimizer, lr=told["lr"]))
    schedule = replace(
        recipe.schedule, epochs=told["epochs"], warmup=told["warmup_epochs"] / told["epochs"]
    )
    assert isinstance(schedule, Schedule)
    per_epoch, losses = told["steps_per_epoch"], []
    for step in range(20):
        factor = partial(lr_factor, step, schedule, per_epoch=per_epoch, total=20)
        set_lr(optimizer, lambda peak, factor=factor: told["lr"] * factor(peak=peak))
        loss = torch.stack(list(run(method, step).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(GOLDEN["twenty_steps"], rel=1e-4)
