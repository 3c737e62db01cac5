"""Comparison with ITSELF's released code, on the same weights and batches.

The numbers come from that code (GenAI4E/ITSELF, commit 2f20d64), run once in fp32 on a CPU with
narrow towers of twelve blocks: both embeddings, the rolled out attention, the selected tokens at
four steps, each loss with the norm of its gradient, new batch statistics, and twenty steps of its
optimiser. Some captions have fewer words than are selected. The released code adds the identity
losses of pictures and captions, of which finegrain takes the mean.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from finegrain import load_recipe
from finegrain.methods import Batch, ItselfConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.models.rollout import Rollout
from finegrain.models.token_selection import allowed_patches, allowed_words, choose
from finegrain.recipe import Schedule
from finegrain.training.optim import lr_factor, make_optimizer, set_lr
from finegrain.zoo import itself as layout
from finegrain.zoo.recognition import recognise

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/itself/released_code.json").read_text())
SHAPES = GOLDEN["shapes"]
HEIGHT, WIDTH = SHAPES["image"]
CONFIG = ItselfConfig(
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
    global_dim=SHAPES["embed_dim"],
    selected_dim=SHAPES["selected_dim"],
    disturb=0.0,
    identities=SHAPES["identities"],
    short_captions="padding",
    wrong_class="batch",
)
LOSSES = tuple(GOLDEN["losses"])
RATE = 1e-4


def around(name):
    """The value around which the weights of a name are drawn."""
    if name.endswith("running_var"):
        return 1.0
    norms = any(part.startswith("ln") or part == "bns" for part in name.split("."))
    norms |= name.startswith(("mlp_global.1", "mlp_grab.1"))
    return float(norms and name.endswith("weight"))


def drawn_method(**changes):
    """A method with the golden run's weights in the released layout."""
    method = replace(CONFIG, **changes).build()
    draw = np.random.RandomState(SHAPES["seed"])
    state = method.to_released()
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            drawn = SHAPES["std"] * draw.standard_normal(tuple(state[name].shape)) + around(name)
            state[name] = torch.from_numpy(drawn.astype(np.float32))
    method.load_state_dict(layout.convert(state))
    return method


def test_the_released_names_are_read_and_recognised():
    """All tensors of the released model, those that it never uses included."""
    state = {name: torch.zeros(shape) for name, shape in GOLDEN["tensors"].items()}
    assert recognise(state) == "itself"
    ours = CONFIG.build().state_dict()
    converted = layout.convert(state)
    assert {n: t.shape for n, t in converted.items()} == {n: t.shape for n, t in ours.items()}


@pytest.fixture
def method():
    return drawn_method()


def drawn_batch(number):
    draw, n = np.random.RandomState(2000 + number), SHAPES["batch"]
    pixels = draw.randint(0, 256, (n, 3, HEIGHT, WIDTH)).astype(np.uint8)
    ids, ends = np.zeros((n, SHAPES["context"]), np.int64), np.zeros(n, np.int32)
    for row in range(n):
        count = draw.randint(1, SHAPES["context"] - 2)
        ids[row, 0], ids[row, count + 1] = 49406, 49407
        ids[row, 1 : count + 1] = draw.randint(1, 49405, count)
        ends[row] = count + 1
    pids = draw.randint(0, 4, n)
    return Batch(
        pixels=torch.from_numpy(pixels),
        ids=torch.from_numpy(ids[:, : ends.max() + 1]),
        eot=torch.from_numpy(ends),
        pids=torch.from_numpy(pids),
        items=torch.arange(n),
        where=("",) * n,
    )


def gradient_norm(method):
    lengths = [p.grad.double().norm() for p in method.parameters() if p.grad is not None]
    return torch.stack(lengths).norm().item()


@torch.no_grad()
def test_embeddings_equal_those_of_the_released_code(method):
    batch, told = drawn_batch(0), GOLDEN["features"]
    method.eval()
    for kind, views in (
        ("image", method._images(batch.pixels)),
        ("text", method._texts(batch.ids, batch.eot)),
    ):
        for part, result in zip(("global", "selected"), views, strict=True):
            expected = torch.tensor(told[f"{kind}_{part}"])
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_product_is_the_weighted_mean_of_both_cosines():
    method, batch = drawn_method(global_share=0.68).eval(), drawn_batch(0)
    scores = method.encode_texts(batch.ids, batch.eot) @ method.encode_images(batch.pixels).T
    told = {name: torch.tensor(result) for name, result in GOLDEN["features"].items()}
    unit = {name: torch.nn.functional.normalize(x, dim=1) for name, x in told.items()}
    whole, local = (unit[f"text_{p}"] @ unit[f"image_{p}"].T for p in ("global", "selected"))
    torch.testing.assert_close(scores, 0.68 * whole + 0.32 * local, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_rolled_out_attention_equals_that_of_the_released_code(method):
    batch, rollout = drawn_batch(0), Rollout()
    images = method.image_tower.attended(batch.pixels, rollout).attention
    texts = method.text_tower.attended(batch.ids, batch.eot, rollout).attention
    told = torch.tensor(GOLDEN["rollout"]["text"])
    torch.testing.assert_close(images, torch.tensor(GOLDEN["rollout"]["image"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(texts, told[:, : texts.shape[1]], atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("step", [1, 725, 1450, 3000])
def test_the_selected_tokens_are_those_of_the_released_code(step, method):
    batch, told = drawn_batch(0), GOLDEN["chosen"][str(step)]
    method.train().steps_done.fill_(step - 1)
    attended = method.image_tower.attended(batch.pixels, method.rollout)
    count = method._count(attended.attention.shape[1] - 1)
    chosen = choose(attended.attention, allowed_patches(attended), count, fill=None)
    assert chosen.tolist() == told["image"]
    ids = torch.nn.functional.pad(batch.ids, (0, SHAPES["context"] - batch.ids.shape[1]))
    attended = method.text_tower.attended(ids, batch.eot, method.rollout)
    fill = torch.arange(SHAPES["context"]) > batch.eot[:, None]
    count = method._count(SHAPES["context"] - 2)
    chosen = choose(attended.attention, allowed_words(attended, batch.eot), count, fill=fill)
    assert chosen.tolist() == told["text"]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient_equal_those_of_the_released_code(name, method):
    method.train().steps_done.fill_(99)
    loss = method(drawn_batch(1))[name]
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN["losses"][name], rel=1e-5)
    assert gradient_norm(method) == pytest.approx(GOLDEN["gradient_norms"][name], rel=1e-5)
    for side, selection in (("image", method.image_selection), ("text", method.text_selection)):
        length = selection.norm.running_mean.double().norm().item()
        assert length == pytest.approx(GOLDEN["running_mean_after"][side], rel=1e-5)


def test_the_last_layer_may_select_a_constant_share_as_in_the_released_code():
    """Without its options ``return_all`` and ``modify_k``."""
    method, told = drawn_method(rollout=None, narrowing=None).train(), GOLDEN["last_layer"]
    losses = method(drawn_batch(1))
    weights = {name: 2.0 if name.startswith("id") else 1.0 for name in losses}
    torch.stack([weights[name] * loss for name, loss in losses.items()]).sum().backward()
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        told["losses"], rel=1e-5
    )
    assert gradient_norm(method) == pytest.approx(told["gradient_norm"], rel=1e-5)


def test_a_separate_class_of_wrong_pairs_differs_from_the_released_code():
    """There, wrong pairs have the class of a person who is not in the batch."""
    method = drawn_method(wrong_class="last").train()
    method.steps_done.fill_(99)
    losses = method(drawn_batch(1))
    assert losses["cid_global"].item() != pytest.approx(GOLDEN["losses"]["cid_global"], rel=1e-3)
    assert losses["id_global"].item() == pytest.approx(GOLDEN["losses"]["id_global"], rel=1e-5)


def test_twenty_steps_equal_those_of_the_released_code(method):
    """With the optimiser and the losses of the recipe, and four epochs of five steps."""
    recipe = load_recipe(ROOT / "recipes/itself_cuhk_pedes.py")
    *rules, selections = recipe.optimizer.rules
    # 0.001 for the selections, for any rate of the towers
    rules.append(replace(selections, lr=1e-3 / RATE))
    optimizer = make_optimizer(method, replace(recipe.optimizer, lr=RATE, rules=tuple(rules)))
    schedule: Schedule = replace(recipe.schedule, epochs=4, warmup=1 / 4)

    def rate(step, peak=1.0):
        return RATE * lr_factor(step, schedule, per_epoch=5, total=20, peak=peak)

    method.train()
    for step, told in enumerate(GOLDEN["steps"]):
        assert rate(step) == pytest.approx(GOLDEN["rates"][step], rel=1e-9)
        set_lr(optimizer, partial(rate, step))
        losses = method(drawn_batch(step % 4))
        named = {name: loss.item() for name, loss in losses.items()}
        assert named == pytest.approx(told, rel=1e-5), f"step {step}"
        optimizer.zero_grad()
        torch.stack([recipe.losses[name] * loss for name, loss in losses.items()]).sum().backward()
        optimizer.step()
        method.after_step()
    norms = {n: t.double().norm().item() for n, t in method.to_released().items()}
    told = GOLDEN["norms_after"]
    assert {n: norms[n] for n in told} == pytest.approx(told, rel=1e-5, abs=1e-5)
    batch = drawn_batch(0)
    with torch.no_grad():
        method.eval()
        result = method._images(batch.pixels).pooled, method._texts(batch.ids, batch.eot).selected
    for name, features in zip(("image_global", "text_selected"), result, strict=True):
        expected = torch.tensor(GOLDEN["features_after"][name])
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
