"""Comparison with released code from files on: ten JPEGs and ten captions, with drawn weights.

The numbers in ``tests/golden/<method>/from_files.json`` come from the released code of IRRA (commit
cfc2378), RDE (b3fd396), ITSELF (2f20d64) and TBPS-CLIP (ba090bc), run once in fp32 on a CPU:
pixels, tokens, statistics of 2,000 augmentations, scores and ranking of an evaluation, and named
losses before and after one step of the optimiser. Masked words are drawn in the released code and
given to finegrain. Random changes of captions and attention dropout are off, except where their
distribution is compared.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import finegrain
from finegrain.data.augment import Augmentation
from finegrain.data.caption_changes import drop_words
from finegrain.methods import Batch, ClipConfig
from finegrain.methods import irra as irra_module
from finegrain.methods.token_masking import MASK, Masked, disturb_words, mask_words
from finegrain.metrics import retrieval_metrics
from finegrain.preprocess import load_image
from finegrain.runs.run import image_transform, training_transform
from finegrain.training.optim import lr_factor, make_optimizer, set_lr
from finegrain.zoo import itself as itself_layout
from finegrain.zoo import rde as rde_layout
from finegrain.zoo.loading import export_irra, load_clip_weights
from finegrain.zoo.renaming import parts_of

ROOT = Path(__file__).parents[2]
METHODS = {name: f"{name}_cuhk_pedes" for name in ("irra", "rde", "itself", "tbps_clip")}
LAYOUTS = {"rde": rde_layout, "itself": itself_layout}
STEP_RATE = 1e-3
DRAWS = 2000
MOST_APART = 0.062
"""Two samples of 2,000 from one distribution have a smaller distance in 999 of 1,000 cases."""


@cache
def golden(name):
    return json.loads((ROOT / f"tests/golden/{name}/from_files.json").read_text())


@cache
def recipe_of(name):
    """The committed recipe with small towers; the released code was run with the same."""
    recipe = finegrain.load_recipe(ROOT / f"recipes/{METHODS[name]}.py")
    method = recipe.method
    image = replace(method.image, channels=128, depth=2, heads=2)
    text = replace(method.text, channels=64, depth=2, heads=1, dropout=0.0)
    small = {"image": image, "text": text}
    if name == "irra":
        small |= {"embed_dim": 64, "identities": 6, "fusion_depth": 2}
    if name == "rde":
        small |= {"items": 10, "disturb": 0.0, "consensus": None, "short_captions": "padding"}
    if name == "itself":
        # Twelve blocks: a rollout over the layers 4 and 11 selects tokens.
        small = {"image": replace(image, depth=12), "text": replace(text, depth=12)}
        small |= {"global_dim": 64, "selected_dim": 96, "identities": 6, "disturb": 0.0}
    if name == "tbps_clip":
        small |= {"embed_dim": 64, "ramp": 2}
    return replace(recipe, method=replace(method, **small))


def drawn(name, like):
    """A tensor whose values depend only on its released name."""
    if name == "logit_scale":
        return torch.tensor(np.log(1 / 0.07), dtype=torch.float32)
    gain = name.endswith("weight") and any(
        p.startswith("ln") or p == "bns" for p in name.split(".")
    )
    around = 1.0 if gain or name.endswith("running_var") else 0.0
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy((0.05 * draw.standard_normal(tuple(like.shape)) + around).astype("f4"))


@pytest.fixture
def build(tmp_path):
    """The small method of a name, with weights in the released layout."""

    def built(name):
        recipe = recipe_of(name)
        method = recipe.method.build(list(recipe.losses))
        if name in LAYOUTS:
            layout = method.to_released()
            state = {n: t if n.endswith("tracked") else drawn(n, t) for n, t in layout.items()}
            method.load_state_dict(LAYOUTS[name].convert(state))
            return method
        layout = export_irra(method if name == "irra" else clip_of(recipe.method).build())
        prefix = "" if name == "irra" else "base_model."
        state = {n: drawn(n.removeprefix(prefix), t) for n, t in layout.items()}
        torch.save({"model": state}, tmp_path / "best.pth")
        load_clip_weights(
            method,
            tmp_path / "best.pth",
            parts=set(parts_of(method.state_dict())) - {"logit_scale", "steps_done"},
        )
        return method

    return built


def clip_of(config):
    """The same towers without the additions of a method."""
    return ClipConfig(image=config.image, text=config.text, embed_dim=config.embed_dim)


@pytest.fixture(scope="module")
def images(ten_pictures):
    return [load_image(path) for path in ten_pictures.images]


def shown(transform, images):
    return np.stack([transform(image) for image in images])


def normalised(recipe, pixels):
    """Input of a tower for bytes ``[..., 3, H, W]``."""
    image = recipe.method.image
    mean, std = (np.array(values)[:, None, None] for values in (image.mean, image.std))
    return (pixels / 255 - mean) / std


def at_spots(values):
    """Sixteen values of each picture."""
    flat = values.reshape(len(values), -1)
    return flat[:, np.random.RandomState(5).randint(0, flat.shape[1], 16)]


def batch_of(recipe, ten_pictures, pixels, rows=range(10)):
    rows = list(rows)
    tokens = recipe.method.text.tokenizer().encode([ten_pictures.captions[i] for i in rows])
    return Batch(
        pixels=torch.from_numpy(pixels[rows]),
        ids=torch.from_numpy(tokens.ids),
        eot=torch.from_numpy(tokens.eot),
        pids=torch.tensor([ten_pictures.pids[i] for i in rows]),
        items=torch.arange(len(rows)),
        where=("",) * len(rows),
    )


# --- preprocessing ------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_pixels_equal_those_of_the_released_code(name, images):
    recipe = recipe_of(name)
    result = normalised(recipe, shown(image_transform(recipe), images))
    np.testing.assert_allclose(at_spots(result), golden(name)["pixels"], atol=2e-6)


def test_tbps_clip_has_other_pixels_in_training(images):
    recipe = recipe_of("tbps_clip")
    result = at_spots(normalised(recipe, shown(training_transform(recipe), images)))
    np.testing.assert_allclose(result, golden("tbps_clip")["training_pixels"], atol=2e-6)
    assert np.abs(result - golden("tbps_clip")["pixels"]).max() > 0.05


@pytest.mark.parametrize("name", METHODS)
def test_tokens_equal_those_of_the_released_code(name, ten_pictures):
    tokens = recipe_of(name).method.text.tokenizer().encode(ten_pictures.captions)
    rows = [row[: eot + 1].tolist() for row, eot in zip(tokens.ids, tokens.eot, strict=True)]
    assert rows == golden(name)["ids"]


def test_tbps_clip_rewords_captions(ten_pictures):
    cleaning = recipe_of("tbps_clip").method.text.cleaning
    assert [cleaning.reworded(caption) for caption in ten_pictures.captions] == [
        " ".join(caption.split()) for caption in golden("tbps_clip")["captions"]
    ]


# --- augmentation, by distribution ---------------------------------------------------------


def measures(x):
    """Statistics of an augmented picture ``[3, H, W]``."""
    height, width = x.shape[1:]
    return {
        **{f"mean_{channel}": x[channel].mean() for channel in range(3)},
        "deviation": x.std(),
        "left_right": x[:, :, : width // 2].mean() - x[:, :, width // 2 :].mean(),
        "top_bottom": x[:, : height // 2].mean() - x[:, height // 2 :].mean(),
        "colour": np.abs(x[0] - x[1]).mean() + np.abs(x[1] - x[2]).mean(),
    }


def apart(values, percentiles):
    """Largest difference of the share of values below each released percentile."""
    ordered, marks = np.sort(values), np.array(percentiles)
    # Equal percentiles are a step of the distribution, so a range of shares is possible.
    share = np.linspace(0, 1, len(marks))
    low, high = (np.searchsorted(ordered, marks, side) / len(ordered) for side in ("left", "right"))
    return max(0.0, (low - share).max(), (share - high).max())


@pytest.mark.parametrize(
    "name",
    ["irra", "rde", *(pytest.param(n, marks=pytest.mark.slow) for n in ("itself", "tbps_clip"))],
)
def test_augmented_pictures_have_the_statistics_of_the_released_code(name, images):
    recipe = recipe_of(name)
    pictures = [p.transpose(1, 2, 0) for p in shown(training_transform(recipe), images)]
    told = recipe.augment
    augment = Augmentation(
        pictures[0].shape[:2],
        flip=told.flip,
        pad=told.pad,
        erase=told.erase,
        fill=told.fill,
        color_jitter=told.jitter,
        picks=told.picks,
    )
    result, erased = [], []
    for draw in range(DRAWS):
        pixels = augment(pictures[draw % 10], draw)
        result.append(measures(normalised(recipe, pixels)))
        if name == "tbps_clip":
            result[-1]["black"] = (pixels == 0).all(axis=0).mean()
        erased.append((pixels == np.array(told.fill)[:, None, None]).all(axis=0).mean())
    for measure, percentiles in golden(name)["augmented"].items():
        assert apart([f[measure] for f in result], percentiles) < MOST_APART, measure
    if told.erase:
        areas = [area for area in erased if area > 0.015]
        assert len(areas) / DRAWS == pytest.approx(golden(name)["erased_share"], abs=0.05)
        assert apart(areas, golden(name)["erased_area"]) < 1.95 * np.sqrt(2 / len(areas))


def test_irra_masks_as_many_words(ten_pictures):
    ids = batch_words("irra", ten_pictures)
    masked = mask_words(ids, rate=recipe_of("irra").method.mask_rate)
    hidden = masked.targets > 0
    exchanged = hidden & (masked.ids != MASK) & (masked.ids != ids)
    counts = [hidden, masked.ids == MASK, exchanged]
    result = [count.sum().item() / DRAWS for count in counts]
    assert result == pytest.approx(golden("irra")["hidden_words"], rel=0.08)


@pytest.mark.parametrize("name", LAYOUTS)
def test_rde_and_itself_change_as_many_words(name, ten_pictures):
    ids = batch_words(name, ten_pictures)
    changed = disturb_words(ids, torch.full((DRAWS,), ids.shape[1] - 1), rate=0.2).ids
    foreign = ~torch.isin(changed, torch.cat([ids[0], torch.tensor([0, MASK])]))
    counts = [changed > 0, changed == MASK, foreign]
    result = [count.sum().item() / DRAWS for count in counts]
    assert result == pytest.approx(golden(name)["disturbed_words"], rel=0.08)


def batch_words(name, ten_pictures):
    """The first caption, repeated for each draw."""
    torch.manual_seed(0)
    tokens = recipe_of(name).method.text.tokenizer().encode(ten_pictures.captions[:1])
    return torch.from_numpy(tokens.ids).repeat(DRAWS, 1)


def test_tbps_clip_drops_as_many_words(ten_pictures):
    recipe = recipe_of("tbps_clip")
    caption = recipe.method.text.cleaning.reworded(ten_pictures.captions[7])
    words, mean, deviation = golden("tbps_clip")["kept_words"]
    share = recipe.augment.drop_words
    counts = [len(drop_words(caption, share, seed).split()) for seed in range(DRAWS)]
    assert len(caption.split()) == words
    assert np.mean(counts) == pytest.approx(mean, abs=4 * deviation * np.sqrt(2 / DRAWS))
    assert np.std(counts) == pytest.approx(deviation, rel=0.1)


# --- evaluation ---------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_scores_ranking_and_metrics_equal_those_of_the_released_code(
    name, build, images, ten_pictures
):
    """RDE and ITSELF select no token of an empty caption, so nine captions are queries there."""
    recipe, method = recipe_of(name), build(name).eval()
    rows = golden(name).get("kept", range(10))
    pixels = shown(image_transform(recipe), images)
    batch = batch_of(recipe, ten_pictures, pixels, rows)
    pictures = method.encode_images(torch.from_numpy(pixels))
    texts = method.encode_texts(batch.ids, batch.eot)
    told = golden(name)["evaluation"]
    scores = (texts @ pictures.T).numpy()
    np.testing.assert_allclose(scores, told["scores"], atol=2e-6)
    assert (-scores).argsort(axis=1, kind="stable").tolist() == told["order"]
    metrics = retrieval_metrics(texts, pictures, batch.pids, ten_pictures.pids).to_dict()
    for metric in ("rank1", "rank5", "mAP", "mINP"):
        if metric in told:
            assert metrics[metric] == pytest.approx(told[metric], abs=1e-3)


# --- losses and one step --------------------------------------------------------------------


def two_steps(recipe, method, batch):
    """Named losses before and after a step, and the norm of the first gradient."""
    optimizer = make_optimizer(method, replace(recipe.optimizer, lr=STEP_RATE))
    set_lr(optimizer, lambda factor: STEP_RATE * factor)
    named, norms = [], []
    for _ in range(2):
        losses = method.train()(batch)
        named.append({name: loss.item() for name, loss in losses.items()})
        optimizer.zero_grad()
        torch.stack([recipe.losses[name] * loss for name, loss in losses.items()]).sum().backward()
        lengths = [p.grad.double().norm() for p in method.parameters() if p.grad is not None]
        norms.append(torch.stack(lengths).norm().item())
        optimizer.step()
        method.after_step()
    return named, norms[0]


@pytest.mark.parametrize("name", METHODS)
def test_losses_gradient_and_a_step_equal_those_of_the_released_code(
    name, build, images, ten_pictures, monkeypatch
):
    recipe, method, told = recipe_of(name), build(name), golden(name)
    if name in LAYOUTS:
        # 0.001 for the selections, for any rate of the towers
        *others, selections = recipe.optimizer.rules
        rules = (*others, replace(selections, lr=1e-3 / STEP_RATE))
        recipe = replace(recipe, optimizer=replace(recipe.optimizer, rules=rules))
    if name == "irra":
        hidden = torch.zeros(10, recipe.method.text.context_length, dtype=torch.int32)
        targets = torch.zeros_like(hidden)
        for row, (ids, wanted) in enumerate(zip(told["masked"], told["targets"], strict=True)):
            hidden[row, : len(ids)] = torch.tensor(ids)
            for place, word in wanted.items():
                targets[row, int(place)] = word
        monkeypatch.setattr(irra_module, "mask_words", lambda ids, rate: Masked(hidden, targets))
    pixels = shown(training_transform(recipe), images)
    batch = batch_of(recipe, ten_pictures, pixels, told.get("kept", range(10)))
    named, norm = two_steps(recipe, method, batch)
    assert norm == pytest.approx(told["gradient_norm"], rel=1e-4)
    for result, expected in zip(named, told["losses"], strict=True):
        assert result == pytest.approx(
            {key.removesuffix("_loss"): value for key, value in expected.items()}, rel=1e-4
        )


def test_rde_on_captions_with_more_words_than_are_selected(build, images, ten_pictures):
    """For these, the default gives the same. It keeps padding out of the statistics."""
    recipe, method, told = recipe_of("rde"), build("rde"), golden("rde")
    method.config = replace(method.config, short_captions="words")
    pixels = shown(training_transform(recipe), images)
    losses = method.train()(batch_of(recipe, ten_pictures, pixels, told["long"]))
    expected = {key.removesuffix("_loss"): value for key, value in told["losses_long"].items()}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5)


def test_learning_rates_of_tbps_clip_equal_those_of_the_released_code():
    """For a run of five epochs of 212 steps."""
    schedule = recipe_of("tbps_clip").schedule
    for step, rate in golden("tbps_clip")["rates"].items():
        result = lr_factor(int(step), schedule, per_epoch=212, total=5 * 212)
        assert result == pytest.approx(rate, rel=1e-9)
