"""Comparison with RDE's released code, on the same weights and batches.

The numbers come from that code, run once in fp32 on a CPU. In evaluation mode: both embeddings of
pictures and captions, some of them shorter than the selection, and the losses of each pair from
which the division is computed. In training mode: both losses, the norms of their gradients, and the
new batch statistics. On captions that are shorter than the selection, both agree only with
``short_captions="padding"``; the default of finegrain differs intentionally.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finegrain.methods import Batch, RdeConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.zoo import rde as layout

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/rde/released_code.json").read_text())
SHAPES = GOLDEN["shapes"]
HEIGHT, WIDTH = SHAPES["image"]
CONFIG = RdeConfig(
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
    ratio=SHAPES["ratio"],
    temperature=SHAPES["temperature"],
    margin=SHAPES["margin"],
    disturb=0.0,
    items=SHAPES["batch"],
)


def around(name):
    """The value around which the weights of a name are drawn."""
    if name.endswith("running_var"):
        return 1.0
    norms = any(part.startswith("ln") or part == "bns" for part in name.split("."))
    return float(norms and name.endswith("weight"))


def drawn_method(**changes):
    """A method with the golden run's weights in the released layout."""
    method = replace(CONFIG, **changes).build()
    draw = np.random.RandomState(SHAPES["seed"])
    state = method.to_released()
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            drawn = 0.02 * draw.standard_normal(tuple(state[name].shape)) + around(name)
            state[name] = torch.from_numpy(drawn.astype(np.float32))
    method.load_state_dict({"trusted": method.trusted, **layout.convert(state)})
    return method


@pytest.fixture
def method():
    return drawn_method()


def drawn_batch(number, *, shortest):
    draw, n = np.random.RandomState(2000 + number), SHAPES["batch"]
    pixels = draw.randint(0, 256, (n, 3, HEIGHT, WIDTH)).astype(np.uint8)
    ids, ends = np.zeros((n, SHAPES["context"]), np.int64), np.zeros(n, np.int32)
    for row in range(n):
        count = draw.randint(shortest, SHAPES["context"] - 2)
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


@torch.no_grad()
def test_embeddings_equal_those_of_the_released_code(method):
    batch = drawn_batch(0, shortest=1)
    method.eval()
    for kind, result in (
        ("image", method.encode_images(batch.pixels)),
        ("text", method.encode_texts(batch.ids, batch.eot)),
    ):
        parts = [torch.tensor(GOLDEN["features"][f"{kind}_{view}"]) for view in ("bge", "tse")]
        expected = torch.cat(parts, dim=1) / 2**0.5
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_product_is_the_mean_of_both_cosines(method):
    batch = drawn_batch(0, shortest=1)
    method.eval()
    scores = method.encode_texts(batch.ids, batch.eot) @ method.encode_images(batch.pixels).T
    told = {name: torch.tensor(result) for name, result in GOLDEN["features"].items()}
    bge, tse = (told[f"text_{view}"] @ told[f"image_{view}"].T for view in ("bge", "tse"))
    torch.testing.assert_close(scores, (bge + tse) / 2, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_losses_of_each_pair_equal_those_of_the_released_code(method):
    result = method.eval()._item_losses(drawn_batch(0, shortest=1))
    for view, losses in GOLDEN["per_pair"].items():
        torch.testing.assert_close(result[view], torch.tensor(losses), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("view", ["bge", "tse"])
def test_a_loss_and_its_gradient_equal_those_of_the_released_code(view, method):
    """The third pair is not trusted."""
    method.trusted[2] = False
    method.train()
    loss = method(drawn_batch(1, shortest=6))[view]
    loss.backward()
    norm = torch.stack(
        [p.grad.double().norm() for p in method.parameters() if p.grad is not None]
    ).norm()
    assert loss.item() == pytest.approx(GOLDEN["losses"][view], rel=1e-5)
    assert norm.item() == pytest.approx(GOLDEN["gradient_norms"][view], rel=1e-5)


def test_batch_statistics_equal_those_of_the_released_code(method):
    method.train()
    method(drawn_batch(1, shortest=6))
    for side, selection in (("image", method.image_selection), ("text", method.text_selection)):
        length = selection.norm.running_mean.double().norm().item()
        assert length == pytest.approx(GOLDEN["running_mean_after"][side], rel=1e-5)


@pytest.mark.parametrize("view", ["bge", "tse"])
def test_short_captions_padded_as_in_the_released_code_have_equal_embeddings(view):
    """One caption has two words. All positions are selected; among padding, torch.topk breaks
    ties."""
    golden = GOLDEN["short_captions"]
    method = drawn_method(short_captions="padding", ratio=golden["ratio"]).train()
    loss = method(drawn_batch(0, shortest=1))[view]
    loss.backward()
    norm = torch.stack(
        [p.grad.double().norm() for p in method.parameters() if p.grad is not None]
    ).norm()
    assert loss.item() == pytest.approx(golden["losses"][view], rel=1e-5)
    assert norm.item() == pytest.approx(golden["gradient_norms"][view], rel=1e-5)
    for side, selection in (("image", method.image_selection), ("text", method.text_selection)):
        length = selection.norm.running_mean.double().norm().item()
        assert length == pytest.approx(golden["running_mean_after"][side], rel=1e-5)


@torch.no_grad()
def test_short_captions_without_padding_differ_from_the_released_code():
    golden = GOLDEN["short_captions"]
    method = drawn_method(ratio=golden["ratio"]).train()
    losses = method(drawn_batch(0, shortest=1))
    assert losses["bge"].item() == pytest.approx(golden["losses"]["bge"], rel=1e-5)
    assert losses["tse"].item() != pytest.approx(golden["losses"]["tse"], rel=1e-4)


@torch.no_grad()
def test_padding_changes_nothing_in_evaluation():
    batch = drawn_batch(0, shortest=1)
    one, other = (drawn_method(short_captions=fill).eval() for fill in ("words", "padding"))
    torch.testing.assert_close(*(m.encode_texts(batch.ids, batch.eot) for m in (one, other)))


@torch.no_grad()
@pytest.mark.parametrize("ratio", [0.3, 1.0])
def test_a_caption_without_words_has_an_embedding(ratio):
    """The released code makes it NaN, and also the captions after it in the batch."""
    batch = drawn_batch(0, shortest=1)
    batch.ids[2, 1], batch.ids[2, 2:] = 49407, 0
    batch.eot[2] = 1
    method = drawn_method(short_captions="padding", ratio=ratio).train()
    assert all(torch.isfinite(loss) for loss in method(batch).values())


@torch.no_grad()
def test_padding_of_short_captions_does_not_change_the_statistics(method):
    """Here finegrain differs from the released code intentionally: padding never changes
    anything."""
    batch = drawn_batch(0, shortest=1)
    longer = replace(batch, ids=torch.nn.functional.pad(batch.ids, (0, 3)))
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    losses, statistics = [], []
    for one in (batch, longer):
        method.load_state_dict(before)
        losses.append(torch.stack(list(method.train()(one).values())))
        statistics.append(method.text_selection.norm.running_mean.clone())
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*statistics)
