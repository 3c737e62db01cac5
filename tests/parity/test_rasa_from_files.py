"""Comparison with RaSa's released code, from files to an optimiser step and a ranking.

The numbers in ``tests/golden/rasa/released_code_from_files.json`` come from RaSa's released code
(Flame-Chasers/RaSa), run once in fp32 on a CPU without dropout, with small widths. It read the ten
pictures and captions of ``tests/fixtures/ten_pictures`` with its own dataset and tokenizer, and
started from a file in ALBEF's layout. That file, the vocabulary and the noise of every draw are
drawn again here, from generators whose streams numpy keeps stable.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finegrain import load_recipe
from finegrain.data.augment import Augmentation
from finegrain.evaluation.reranking import score_candidates
from finegrain.methods import rasa as rasa_module
from finegrain.methods.token_masking import Changed
from finegrain.preprocess import load_image
from finegrain.records import Sample, Split
from finegrain.runs.run import assemble, build_method, eager_encoder, training_transform
from finegrain.training.loader import Item, Pairs, _collate
from finegrain.training.optim import lr_factor, make_optimizer, set_lr
from finegrain.training.pictures import Pictures
from finegrain.zoo.loading import export_rasa

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/rasa/released_code_from_files.json").read_text())
SHAPES = GOLDEN["shapes"]
PICTURES = ROOT / "tests/fixtures/ten_pictures"
LISTED = json.loads((PICTURES / "captions.json").read_text())
CAPTIONS = [one["caption"] for one in LISTED]
SAMPLES = tuple(
    Sample(image=PICTURES / one["image"], captions=(one["caption"],), pid=one["pid"])
    for one in LISTED
)
PER_EPOCH = 1310
MASK = 103


def vocabulary():
    """In the layout of BERT-base uncased: three of four words are single tokens, the others
    letters."""
    text = " ".join(CAPTIONS).lower()
    characters = {c for c in text if not c.isspace()}
    letters = sorted(characters | set("abcdefghijklmnopqrstuvwxyz0123456789"))
    words = sorted(set(re.findall("[a-z]{2,}", text)))
    special = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    whole = [word for i, word in enumerate(words) if i % 4]
    return [*special, *letters, *(f"##{letter}" for letter in letters), *whole]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The committed recipe with the golden run's sizes, and a file to start from."""
    folder = tmp_path_factory.mktemp("rasa")
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    committed = load_recipe(ROOT / "recipes/rasa_cuhk_pedes.py")
    method = committed.method
    small = replace(
        committed,
        weights=str(folder / "ALBEF.pth"),
        method=replace(
            method,
            image=replace(
                method.image,
                height=SHAPES["image"],
                width=SHAPES["image"],
                channels=SHAPES["vision_width"],
                depth=SHAPES["vision_layers"],
                heads=SHAPES["heads"],
            ),
            text=replace(
                method.text,
                vocabulary_file=str(folder / "vocab.txt"),
                vocabulary=SHAPES["vocabulary"],
                training_length=SHAPES["positions"],
                positions=SHAPES["positions"],
                channels=SHAPES["text_width"],
                depth=SHAPES["lower"],
                fusion_depth=SHAPES["upper"],
                heads=SHAPES["heads"],
                dropout=0.0,
            ),
            embed_dim=SHAPES["embed_dim"],
            queue=SHAPES["queue"],
            softness=SHAPES["alpha"],
            ramp=1,
        ),
    )
    state = drawn_state(small)
    torch.save({"model": {n: t for n, t in state.items() if not is_rasas_own(n)}}, small.weights)
    return small


def is_rasas_own(name):
    return name.startswith(("prd", "mrtd", "idx_queue"))


def drawn_state(recipe):
    """Weights and queues under the released names; the momentum copies differ from their
    originals."""
    draw = np.random.RandomState(SHAPES["seed"])
    state = export_rasa(assemble(recipe))
    names = [n for n in sorted(state) if not ("_m." in n or "queue" in n or n == "temp")]
    assert len(names) == GOLDEN["names"]
    for name in names:
        is_gain = name.endswith("weight") and "norm" in name.lower().split(".")[-2]
        drawn = 0.1 * draw.standard_normal(tuple(state[name].shape)) + is_gain
        state[name] = torch.from_numpy(drawn.astype(np.float32))
    for name in sorted(n for n in state if "_m." in n):
        original = state[name.replace("_m.", ".", 1)]
        drawn = 0.05 * draw.standard_normal(tuple(original.shape))
        state[name] = original + torch.from_numpy(drawn.astype(np.float32))
    for name in ("image_queue", "text_queue"):
        drawn = draw.standard_normal((SHAPES["embed_dim"], SHAPES["queue"])).astype(np.float32)
        state[name] = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=0))
    return state | {"queue_ptr": torch.tensor([SHAPES["pointer"]])}


@pytest.fixture
def method(recipe):
    """The method as training starts it: from the file, with heads that the file lacks."""
    built, state = build_method(recipe), drawn_state(recipe)
    for head in (built.prd_head, built.mrtd_head):
        name = "prd_head" if head is built.prd_head else "mrtd_head"
        head.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})
    return built


@pytest.mark.parametrize("kind", ["tokens", "training_tokens"])
def test_tokens_equal_those_of_the_released_code(kind, recipe):
    """Training keeps fifty words, and evaluation fifty tokens."""
    text = recipe.method.text
    tokenizer = text.tokenizer() if kind == "tokens" else text.training_tokenizer()
    tokens = tokenizer.encode(CAPTIONS)
    kept = [ids[:end].tolist() for ids, end in zip(tokens.ids, tokens.eot, strict=True)]
    assert kept == GOLDEN[kind]


def test_pixels_equal_those_of_the_released_code(recipe, method):
    transform = training_transform(recipe)
    pixels = np.stack([transform(load_image(sample.image)) for sample in SAMPLES])
    normalised = method.image_tower.pixel_norm(torch.from_numpy(pixels))
    for image, expected in zip(normalised, GOLDEN["pixels"], strict=True):
        at = [image[0, 5, 7], image[1, 20, 30], image[2, 40, 11]]
        values = [float(value) for value in (image.mean(), image.std(), *at)]
        assert values == pytest.approx(expected, abs=2e-6)


def augmentation_of(recipe, **changes):
    augment = replace(recipe.augment, **changes)
    return Augmentation(
        (SHAPES["image"], SHAPES["image"]),
        flip=augment.flip,
        pad=augment.pad,
        erase=augment.erase,
        fill=augment.fill,
        color_jitter=augment.jitter,
        picks=augment.picks,
    )


def test_pictures_are_mirrored_as_often_and_not_changed_otherwise(recipe):
    """The shares of 2,000 draws differ by less than four standard deviations."""
    transform, augmentation = training_transform(recipe), augmentation_of(recipe)
    golden, flipped = GOLDEN["draws"], 0
    plain = [transform(load_image(sample.image)) for sample in SAMPLES]
    for draw in range(golden["count"]):
        picture = plain[draw % len(plain)]
        drawn = augmentation(np.ascontiguousarray(picture.transpose(1, 2, 0)), draw)
        is_flipped = np.array_equal(drawn, picture[..., ::-1])
        assert is_flipped or np.array_equal(drawn, picture)
        flipped += is_flipped
    assert golden["plain_or_flipped"] == golden["count"]
    assert abs(flipped - golden["flipped"]) < 4 * (2 * golden["count"] * 0.25) ** 0.5


def test_weak_positives_are_drawn_as_often(recipe):
    split = Split(name="train", samples=SAMPLES)
    pairs = Pairs(
        split,
        Pictures(split, training_transform(recipe), progress=False),
        augmentation_of(recipe),
        weak_positives=recipe.weak_positives,
        seed=0,
    )
    golden = GOLDEN["draws"]
    epochs = golden["count"] // len(pairs)
    replaced = sum(
        pairs[epoch, i].is_replaced for epoch in range(epochs) for i in range(len(pairs))
    )
    assert abs(replaced - golden["replaced"]) < 4 * (2 * golden["replaced"]) ** 0.5


@torch.no_grad()
def test_the_ranking_equals_that_of_the_released_code(recipe, method):
    """By the match logit among the first six, as the paper reports for the first 128."""
    encoder = eager_encoder(recipe, method, torch.device("cpu"))
    stage = score_candidates(encoder, SAMPLES, depth=SHAPES["depth"])
    for places, scores, golden in zip(
        stage.candidates, stage.scores, GOLDEN["scores"], strict=True
    ):
        asked = {place: score for place, score in enumerate(golden) if score is not None}
        assert sorted(places) == sorted(asked)
        assert scores.tolist() == pytest.approx([asked[place] for place in places], abs=1e-4)
        by_score = sorted(asked, key=lambda place: -asked[place])
        assert places[np.argsort(-scores, kind="stable")].tolist() == by_score
    metrics = stage.match_metrics()
    assert (metrics.rank1, metrics.rank5) == (GOLDEN["metrics"]["r1"], GOLDEN["metrics"]["r5"])


def training_batch(recipe):
    """Unchanged pictures, each with its caption and one of the same person.

    Own captions have up to 64 tokens, and those of the same person up to 82.
    """
    transform, unchanged = training_transform(recipe), augmentation_of(recipe, flip=0.0)
    items = []
    for number, (own, told) in enumerate(zip(SHAPES["rows"], SHAPES["told"], strict=True)):
        picture = transform(load_image(SAMPLES[own].image))
        items.append(
            Item(
                pixels=unchanged(np.ascontiguousarray(picture.transpose(1, 2, 0)), 0),
                captions=(CAPTIONS[own], CAPTIONS[told]),
                label=SAMPLES[own].pid,
                where=str(SAMPLES[own].image),
                number=number,
                is_replaced=own != told,
            )
        )
    tokenizer = recipe.method.text.training_tokenizer()
    return _collate(
        items, tokenizer=tokenizer, groups=None, has_weak_positives=True, has_wrong_captions=False
    )


def hidden_words(caption, number):
    """Captions with masked words, for each of the two rates."""
    draw = np.random.RandomState(1000 + number)
    ids, seen = caption.ids.numpy(), caption.seen.numpy()
    hidden = []
    for rate in (0.25, 0.4):
        at = (draw.rand(*ids.shape) < rate) & seen
        at[:, 0] = False
        changed = np.where(at, MASK, ids)
        others = at & (draw.rand(*ids.shape) < 0.3)
        words = draw.randint(MASK + 1, SHAPES["vocabulary"], ids.shape)
        changed = np.where(others, words, changed).astype(ids.dtype)
        hidden.append(Changed(torch.from_numpy(changed), torch.from_numpy(at)))
    return hidden


@pytest.fixture
def replay_draws(monkeypatch):
    """Make the draws of a step equal those of the golden run, and record them."""

    def start(number, config):
        draws, noise, kept = [], np.random.RandomState(5000 + number), {}

        def gumbel(shape):
            return torch.from_numpy(noise.gumbel(size=tuple(shape)))

        def multinomial(weights, count):
            drawn = (weights.double().log() + gumbel(weights.shape)).argmax(dim=1)
            draws.append(drawn.tolist())
            return drawn[:, None]

        def recorded_negatives(logits, same):
            drawn, exists = draw_hard_negatives(logits, same)
            draws.append(drawn.tolist())
            return drawn, exists

        def hide_words(caption, *, rate, special, vocabulary):
            of_mlm, of_mrtd = kept.setdefault("hidden", hidden_words(caption, number))
            return of_mlm if rate == config.mask_rate else of_mrtd

        def exponential(tensor):
            return tensor.copy_(torch.exp(-gumbel(tensor.shape)))

        monkeypatch.setattr(torch, "multinomial", multinomial)
        monkeypatch.setattr(torch.Tensor, "exponential_", exponential)
        monkeypatch.setattr(rasa_module, "draw_hard_negatives", recorded_negatives)
        monkeypatch.setattr(rasa_module, "hide_words", hide_words)
        monkeypatch.setattr(rasa_module, "mirror", lambda pixels: pixels.flip(3))
        return draws

    draw_hard_negatives = rasa_module.draw_hard_negatives
    return start


def is_without_gradient(name):
    """The bias of a key adds one number to all scores of a query, so its gradient is only
    rounding."""
    return name.endswith(("key.bias", "qkv.bias"))


def test_two_steps_equal_those_of_the_released_code(recipe, method, replay_draws):
    """Steps 0 and 101 of the recipe: losses, gradient, draws, rates, and changes of parameters."""
    batch = training_batch(recipe)
    optimizer = make_optimizer(method, recipe.optimizer)
    before = {name: tensor.clone() for name, tensor in export_rasa(method).items()}
    method.train()
    method.start_epoch(0, ())
    for number, (step, golden) in enumerate(zip((0, 101), GOLDEN["steps"], strict=True)):
        method.steps_done.fill_(1)
        draws = replay_draws(number, recipe.method)

        def rate(peak, step=step):
            factor = lr_factor(
                step, recipe.schedule, per_epoch=PER_EPOCH, total=30 * PER_EPOCH, peak=peak
            )
            return recipe.optimizer.lr * factor

        # It has two groups of rates: all parameters, and prd_head with mrtd_head.
        assert [rate(1.0), rate(10.0)] == pytest.approx([golden["rates"][0], golden["rates"][2]])
        set_lr(optimizer, rate)
        losses = method(batch)
        optimizer.zero_grad()
        total = torch.stack([recipe.losses[name] * loss for name, loss in losses.items()]).sum()
        total.backward()
        gradient = torch.stack(
            [p.grad.double().norm() for p in method.parameters() if p.grad is not None]
        ).norm()
        of_padding = method.text_tower.bert.words.weight.grad[0].double().norm()
        optimizer.step()
        method.after_step()
        assert draws == [*golden["negatives"], golden["words"]]
        named = [losses[name].item() for name in ("cl", "pitm", "mlm", "prd", "mrtd")]
        assert named == pytest.approx(golden["losses"], rel=2e-6)
        assert gradient.item() == pytest.approx(golden["gradient"], rel=1e-5)
        assert of_padding.item() == pytest.approx(golden["pad_gradient"], rel=1e-4)
    after, golden = export_rasa(method), GOLDEN["after"]
    assert after["queue_ptr"].item() == golden["queue_ptr"]
    assert after["idx_queue"].flatten().tolist() == golden["idx_queue"]
    sums = after["image_queue"].double().sum(dim=1).tolist()
    assert sums == pytest.approx(golden["image_queue"], abs=1e-5)
    moved = {name: (after[name] - before[name]).double() for name in golden["moved"]}
    for name, (total, norm) in golden["moved"].items():
        if not is_without_gradient(name):
            assert moved[name].norm().item() == pytest.approx(norm, rel=1e-3), name
            assert moved[name].sum().item() == pytest.approx(total, abs=1e-4), name
