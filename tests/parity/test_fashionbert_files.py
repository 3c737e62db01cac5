"""FashionBERT from JPEG files and sentences to an optimiser step.

The released code needs TensorFlow 1 and cannot be run here. Its computation is written again below,
in float64 and one formula after another, from its source (EasyTransfer, ``modeling_imagebert.py``,
``pretrain_loss.py``, ``optimizers/__init__.py``): the joint encoder, the three losses and their
weights, clipping, TensorFlow's Adam and its linear decay. The released code pads captions to 64
tokens, and finegrain to the longest of a batch. Two parts are finegrain's and are not compared: the
tokens are CLIP's, and the patch encoder is a small one of timm.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from finegrain import load_recipe
from finegrain.data.datasets import FashionGen
from finegrain.methods import fashionbert as module
from finegrain.methods.token_masking import Masked
from finegrain.models import VitConfig
from finegrain.models.joint_bert import BertConfig
from finegrain.models.patches import PatchConfig
from finegrain.recipe import Schedule
from finegrain.records import Sample, Split
from finegrain.training import loop
from finegrain.training.distributed import World
from finegrain.training.wrong_captions import SUBCATEGORY

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests" / "fixtures" / "ten_pictures"
TOLD = json.loads((FILES / "captions.json").read_text(encoding="utf-8"))
SIDE, GRID, LENGTH, HEADS = 64, 8, 64, 2
LOSSES = ("mlm", "tia", "mpm")
STEPS, WARM, RATE, BETAS, EPS = 20, 2, 1e-4, (0.9, 0.98), 1e-6


def samples():
    """Ten pictures of six products in two sub-categories."""
    return tuple(
        Sample(
            image=FILES / told["image"],
            captions=(told["caption"],),
            pid=told["pid"],
            metadata={SUBCATEGORY: "TOPS" if told["pid"] < 3 else "DRESSES"},
        )
        for told in TOLD
    )


@pytest.fixture(scope="module")
def recipe():
    """The recipe of the published dataset with narrow layers and no dropout."""
    published = load_recipe(ROOT / "recipes" / "fashionbert_fashion_gen.py")
    method = replace(
        published.method,
        image=VitConfig(height=SIDE, width=SIDE, channels=32, depth=1, heads=2),
        text=replace(published.method.text, channels=32, depth=1, heads=2),
        embed_dim=16,
        patches=PatchConfig(model="test_resnet", grids=(GRID,), pixels=32, frozen=True),
        joint=BertConfig(channels=32, depth=2, heads=HEADS, dropout=0.0, activation="gelu_tanh"),
        patch_weights="drawn",
        bert_weights=None,
    )
    assert published.method.joint.activation == method.joint.activation
    return replace(
        published,
        method=method,
        weights=None,
        # The towers are not in the released code. Without their loss, only its parameters change.
        losses={**published.losses, "sdm": 0.0},
        schedule=replace(published.schedule, epochs=STEPS, steps=STEPS),
        batch_size=len(TOLD),
        precision="fp32",
        workers=0,
    )


@pytest.fixture
def trainer(recipe, tmp_path, monkeypatch):
    split = Split(name="train", samples=samples())
    monkeypatch.setattr(FashionGen, "splits", lambda _: {"train": split})
    monkeypatch.setattr(module, "load_backbone_weights", lambda *_: None)
    alone = World(rank=0, size=1, device=torch.device("cpu"))
    trainer = loop._Trainer(recipe, tmp_path, alone, progress=False)
    torch.manual_seed(5)
    with torch.no_grad():  # gains and biases that are not 1 and 0
        for name, parameter in trainer.model.named_parameters():
            if name.startswith(("joint.", "match_head.", "word_head.", "patch_head.")):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return trainer


@pytest.fixture
def batch(trainer):
    trainer.order.start_at(0, 0)
    (batch,) = trainer.loader
    return batch


# --- from files to inputs -------------------------------------------------------------------


def test_pixels_equal_those_of_the_files(batch):
    for pixels, number in zip(batch.pixels, batch.items, strict=True):
        picture = Image.open(FILES / TOLD[int(number)]["image"]).convert("RGB")
        sized = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=int)
        difference = np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - sized)
        assert difference.max() <= 1


def test_patches_are_cut_in_raster_order_and_encoded_one_by_one(trainer, batch):
    patches = trainer.model.patches
    got = patches(batch.pixels[:3])
    step = SIDE // GRID
    for n in range(3):
        for i in range(GRID):
            for j in range(GRID):
                rows, columns = slice(i * step, (i + 1) * step), slice(j * step, (j + 1) * step)
                cell = patches.pixel_norm(batch.pixels[n : n + 1, :, rows, columns])
                sized = F.interpolate(cell, (32, 32), mode="bilinear")
                expected = patches.backbone(sized)[0]
                torch.testing.assert_close(got[n, i * GRID + j], expected, atol=1e-5, rtol=1e-4)


def test_captions_are_truncated_to_64_tokens(batch):
    captions = [TOLD[int(number)]["caption"] for number in batch.items]
    expected = open_clip.get_tokenizer("ViT-B-16", context_length=LENGTH)(captions)
    assert int(batch.eot.max()) == LENGTH - 1
    assert torch.equal(batch.ids, expected[:, : batch.ids.shape[1]].int())


def test_a_wrong_caption_comes_from_the_sub_category(trainer, batch):
    ids = {
        tuple(trainer.tokenizer.encode([told["caption"]]).ids[0].tolist()): told["pid"]
        for told in TOLD
    }
    for wrong, eot, number in zip(batch.wrong_ids, batch.wrong_eot, batch.items, strict=True):
        own = TOLD[int(number)]["pid"]
        pid = ids[tuple(wrong[: int(eot) + 1].tolist())]
        assert pid != own
        assert (pid < 3) == (own < 3)


def test_masked_words_are_complete_and_as_many_as_in_the_released_data(trainer, batch):
    """At most ``min(10, max(1, round(0.15 n)))`` of ``n`` tokens, including start and end."""
    torch.manual_seed(0)
    for _ in range(20):
        masked = trainer.model._hide_words(batch.ids)
        for ids, targets, eot in zip(batch.ids, masked.targets, batch.eot.tolist(), strict=True):
            chosen = targets > 0
            assert int(chosen.sum()) <= min(10, max(1, round(0.15 * (eot + 1))))
            assert not chosen[0]
            assert not chosen[eot:].any()
            assert torch.equal(targets[chosen], ids[chosen])


# --- the released computation ------------------------------------------------------------------


def norm(x, gain, offset):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt() * gain + offset


def gelu_new(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def dense(p, name, x):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def normed(p, name, x):
    return norm(x, p[f"{name}.weight"], p[f"{name}.bias"])


def encode(p, ids, seen, features):
    """Words and patches of pairs in one sequence, ``[N, 64 + P, W]``."""
    bert, image = "joint.bert", "joint.patch_embedding"
    words = p[f"{bert}.words.weight"][ids] + p[f"{bert}.positions.weight"][:LENGTH]
    words = normed(p, f"{bert}.norm", words + p[f"{bert}.types.weight"][0])
    patches = features @ p[f"{image}.projection.weight"].T + p[f"{image}.positions.weight"]
    patches = normed(p, f"{image}.norm", patches + p[f"{image}.kind.weight"][0])
    x = torch.cat([words, patches], dim=1)
    shown = torch.cat([seen, torch.ones(len(ids), features.shape[1])], dim=1).to(x.dtype)
    hidden = (1 - shown)[:, None, None, :] * -10000.0
    for layer in range(2):
        name, (n, length, width) = f"{bert}.layers.{layer}", x.shape

        def heads(part, name=name, x=x, n=n, length=length, width=width):
            return dense(p, f"{name}.{part}", x).view(n, length, HEADS, width // HEADS)

        q, k, v = heads("query"), heads("key"), heads("value")
        scores = torch.einsum("bind,bjnd->bnij", q, k) / math.sqrt(width // HEADS)
        mixed = torch.einsum("bnij,bjnd->bind", (scores + hidden).softmax(-1), v)
        mixed = dense(p, f"{name}.attention_out", mixed.reshape(n, length, width))
        x = normed(p, f"{name}.attention_norm", x + mixed)
        thought = dense(p, f"{name}.mlp_out", gelu_new(dense(p, f"{name}.mlp_in", x)))
        x = normed(p, f"{name}.mlp_norm", x + thought)
    return x


def released_losses(p, ids, seen, features, hidden, targets, matches):
    """The three losses of pairs, one pair per row: masked words, match, masked patches."""
    shown = features * (1 - hidden.to(features.dtype))[..., None]
    x = encode(p, ids, seen, shown)
    words, patches = x[:, :LENGTH], x[:, LENGTH:]

    at = targets > 0
    guess = normed(p, "word_head.norm", gelu_new(dense(p, "word_head.dense", words[at])))
    scores = guess @ p["joint.bert.words.weight"].T + p["word_head.bias"]
    told = -scores.log_softmax(-1).gather(1, targets[at].long()[:, None])
    mlm = told.sum() / (at.sum() + 1e-5)

    pooled = torch.tanh(dense(p, "joint.bert.pooler", x[:, 0]))
    tia = -dense(p, "match_head", pooled).log_softmax(-1).gather(1, matches[:, None]).mean()

    own = features[hidden].softmax(-1).clamp(1e-7, 1)
    guessed = (patches[hidden] @ p["patch_head.weight"].T).softmax(-1).clamp(1e-7, 1)
    mpm = (own * (own / guessed).log()).sum(-1).mean()
    return mlm, tia, mpm


def adaptive(losses):
    """The weighted sum, whose gradient also flows through the weights."""
    n = torch.stack(losses).softmax(0).square()
    a, b, c = (3 - n[i] for i in range(3))
    total = a * b + b * c + c * a
    return (b * c * losses[0] + c * a * losses[1] + a * b * losses[2]) / total


def padded(ids, length=LENGTH):
    return F.pad(ids.long(), (0, length - ids.shape[1]))


@pytest.fixture
def fixed(trainer, batch, monkeypatch):
    """Masked words and pairs, drawn once, in the form that the released code takes."""
    torch.manual_seed(9)
    model = trainer.model
    ids = torch.cat([batch.ids, batch.wrong_ids])
    eot = torch.cat([batch.eot, batch.wrong_eot])
    masked = model._hide_words(ids)
    hidden = model._hide_patches(torch.zeros(len(batch.pixels), GRID * GRID, 1))
    monkeypatch.setattr(model, "_hide_words", lambda _: Masked(masked.ids, masked.targets))
    monkeypatch.setattr(model, "_hide_patches", lambda _: hidden)
    features = model.patches(batch.pixels).detach().double()
    return {
        "ids": padded(masked.ids),
        "seen": (torch.arange(LENGTH) <= eot[:, None]).double(),
        "features": torch.cat([features, features]),
        "hidden": torch.cat([hidden, hidden]),
        "targets": padded(masked.targets),
        "matches": torch.tensor([1] * len(TOLD) + [0] * len(TOLD)),
    }


def joint_parameters(model):
    parts = ("joint.", "match_head.", "word_head.", "patch_head.")
    return {n: p for n, p in model.named_parameters() if n.startswith(parts)}


def in_double(model):
    return {
        name: parameter.detach().double().requires_grad_()
        for name, parameter in joint_parameters(model).items()
    }


def test_the_losses_equal_the_released_formulas(trainer, batch, fixed):
    expected = released_losses(in_double(trainer.model), **fixed)
    trainer.model.train()
    weighted = trainer.model(batch)
    total = sum(weighted[name] for name in LOSSES)
    assert total.item() == pytest.approx(adaptive(expected).item(), rel=1e-5)
    plain = replace(trainer.model.config, weighting="fixed")
    trainer.model.config = plain
    for name, loss in zip(LOSSES, expected, strict=True):
        # The released divisor of masked words is 1e-5 larger.
        assert trainer.model(batch)[name].item() == pytest.approx(loss.item(), rel=2e-5)


def test_two_steps_equal_those_of_the_released_optimiser(trainer, batch, fixed):
    """Clipping, TensorFlow's Adam, and a rate that is 0 at the first step."""
    parameters = in_double(trainer.model)
    moments = {name: [torch.zeros_like(p)] * 2 for name, p in parameters.items()}
    start = {name: p.detach().clone() for name, p in parameters.items()}
    for step in range(2):
        loss = adaptive(released_losses(parameters, **fixed))
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        gradients = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(parameters.values(), gradients, strict=True)
        ]
        length = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        rate = RATE * (1 - step / STEPS) * min(1.0, step / WARM)
        rate *= math.sqrt(1 - BETAS[1] ** (step + 1)) / (1 - BETAS[0] ** (step + 1))
        for (name, p), g in zip(list(parameters.items()), gradients, strict=True):
            clipped = g / max(length, 1.0)
            m, v = moments[name]
            m = BETAS[0] * m + (1 - BETAS[0]) * clipped
            v = BETAS[1] * v + (1 - BETAS[1]) * clipped.square()
            moments[name] = [m, v]
            parameters[name] = (p - rate * m / (v.sqrt() + EPS)).detach().requires_grad_()
        trainer._step(batch, step)
    moved = 0
    for name, parameter in joint_parameters(trainer.model).items():
        expected = (parameters[name] - start[name]).detach()
        got = parameter.detach().double() - start[name]
        torch.testing.assert_close(got, expected, atol=0.03 * RATE, rtol=0.03, msg=name)
        moved += int((expected.abs() > 0.1 * RATE).sum())
    assert moved > 1000
    assert trainer.recipe.schedule == Schedule(
        decay="linear", epochs=STEPS, steps=STEPS, warmup=WARM / STEPS
    )
