"""Comparison with RaSa's released code, on the same weights, batches and draws.

The numbers come from that code, run once in fp32 on a CPU without dropout: features, every named
loss and the norm of its gradient, and three training steps with their momentum copies and queues.
Weights, batches and the noise of every draw are drawn again here, from generators whose streams
numpy keeps stable.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import finegrain
from finegrain.methods import Batch, RasaConfig
from finegrain.methods import rasa as rasa_module
from finegrain.methods.token_masking import Changed
from finegrain.models.albef_image import AlbefImageConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.zoo.loading import export_rasa, load_clip_weights

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/rasa/released_code.json").read_text())
SHAPES = GOLDEN["shapes"]
N, LENGTH, QUEUE = SHAPES["batch"], SHAPES["context"] - 1, SHAPES["queue"]
START, END, MASK = 101, 102, 103
CONFIG = RasaConfig(
    image=AlbefImageConfig(
        height=SHAPES["image"][0],
        width=SHAPES["image"][1],
        patch=SHAPES["patch"],
        channels=SHAPES["vision_width"],
        depth=SHAPES["vision_layers"],
        heads=SHAPES["heads"],
    ),
    text=AlbefTextConfig(
        vocabulary_file="vocab.txt",
        vocabulary=SHAPES["vocabulary"],
        context_length=SHAPES["context"],
        positions=SHAPES["positions"],
        channels=SHAPES["text_width"],
        depth=SHAPES["lower"],
        fusion_depth=SHAPES["upper"],
        heads=SHAPES["heads"],
        dropout=0.0,
    ),
    embed_dim=SHAPES["embed_dim"],
    queue=QUEUE,
    softness=SHAPES["alpha"],
    ramp=1,
)
FEATURES = ("image_queue", "text_queue")


def is_gain(name):
    return name.endswith("weight") and "norm" in name.lower().split(".")[-2]


def drawn_state():
    """The golden run's weights under the released names, and queues that are half full."""
    draw = np.random.RandomState(SHAPES["seed"])
    state = export_rasa(CONFIG.build())
    names = [n for n in sorted(state) if not ("_m." in n or "queue" in n or n == "temp")]
    assert len(names) == GOLDEN["names"]
    for name in names:
        drawn = 0.1 * draw.standard_normal(tuple(state[name].shape)) + is_gain(name)
        state[name] = torch.from_numpy(drawn.astype(np.float32))
    for name in (n for n in state if "_m." in n):
        state[name] = state[name.replace("_m.", ".", 1)]
    for name in FEATURES:
        drawn = draw.standard_normal((SHAPES["embed_dim"], QUEUE)).astype(np.float32)
        state[name] = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=0))
    ids = np.where(np.arange(QUEUE) < 6, draw.randint(0, SHAPES["identities"], QUEUE), -100)
    return state | {"idx_queue": torch.from_numpy(ids)[None], "queue_ptr": torch.tensor([6])}


def drawn_method(path, **changes):
    torch.save({"model": drawn_state()}, path)
    method = replace(CONFIG, **changes).build()
    load_clip_weights(method, path)
    method.steps_done.fill_(1)
    return method


def drawn_captions(draw, longest):
    ids, lengths = np.zeros((N, LENGTH), np.int64), np.zeros(N, np.int64)
    for row in range(N):
        lengths[row] = LENGTH if row == longest else draw.randint(3, LENGTH)
        ids[row, 0] = START
        ids[row, 1 : lengths[row]] = draw.randint(MASK + 1, SHAPES["vocabulary"], lengths[row] - 1)
    return ids, lengths


def drawn_batch(number):
    """A batch, and its captions with masked words, for each of the two rates."""
    draw = np.random.RandomState(1000 + number)
    pixels = draw.randint(0, 256, (N, 3, *SHAPES["image"])).astype(np.uint8)
    own, own_lengths = drawn_captions(draw, 0)
    told, told_lengths = drawn_captions(draw, 1)
    replaced, pids = draw.randint(0, 2, N), draw.randint(0, SHAPES["identities"], N)
    pids[0] = (pids[1] + 1) % SHAPES["identities"]
    hidden = []
    for rate in (0.25, 0.4):
        at = (draw.rand(N, LENGTH) < rate) & (np.arange(LENGTH) < own_lengths[:, None])
        at[:, 0], at[0, 1] = False, True
        ids = np.where(at, MASK, own)
        others = at & (draw.rand(N, LENGTH) < 0.3)
        random_words = draw.randint(MASK + 1, SHAPES["vocabulary"], (N, LENGTH))
        ids = np.where(others, random_words, ids)
        hidden.append(Changed(torch.from_numpy(ids), torch.from_numpy(at)))
    ids = np.pad(np.stack([own, told], axis=1).reshape(2 * N, LENGTH), ((0, 0), (0, 1)))
    eot = np.stack([own_lengths, told_lengths], axis=1).reshape(-1)
    ids[np.arange(2 * N), eot] = END
    batch = Batch(
        pixels=torch.from_numpy(pixels),
        ids=torch.from_numpy(ids),
        eot=torch.from_numpy(eot),
        pids=torch.from_numpy(pids),
        items=torch.arange(N),
        where=("",) * N,
        replaced=torch.from_numpy(replaced).bool(),
    )
    return batch, hidden


@pytest.fixture
def run(monkeypatch):
    """Losses of a method on a golden batch, with its draws: words, negatives and mirrors."""
    draws = []
    draw_hard_negatives = rasa_module.draw_hard_negatives

    def recorded_negatives(logits, same):
        drawn, exists = draw_hard_negatives(logits, same)
        draws.append(drawn.tolist())
        return drawn, exists

    def losses(method, number):
        batch, (of_mlm, of_mrtd) = drawn_batch(number)
        noise = np.random.RandomState(5000 + number)

        def gumbel(shape):
            return torch.from_numpy(noise.gumbel(size=tuple(shape)))

        def multinomial(weights, count):
            noisy = weights.double().log() + gumbel(weights.shape)
            draws.append(noisy.argmax(dim=1).tolist())
            return noisy.argmax(dim=1, keepdim=True)

        def hide_words(caption, *, rate, special, vocabulary):
            return of_mlm if rate == CONFIG.mask_rate else of_mrtd

        def exponential(tensor):
            return tensor.copy_(torch.exp(-gumbel(tensor.shape)))

        monkeypatch.setattr(torch, "multinomial", multinomial)
        monkeypatch.setattr(torch.Tensor, "exponential_", exponential)
        monkeypatch.setattr(rasa_module, "draw_hard_negatives", recorded_negatives)
        monkeypatch.setattr(rasa_module, "hide_words", hide_words)
        monkeypatch.setattr(rasa_module, "mirror", lambda pixels: pixels.flip(3))
        return method(batch)

    losses.draws = draws
    return losses


@torch.no_grad()
def test_features_and_matches_equal_those_of_the_released_code(tmp_path):
    method = drawn_method(tmp_path / "best.pth")
    batch, _ = drawn_batch(0)
    images = method.encode_images(batch.pixels)
    texts = method.encode_texts(batch.ids[1::2], batch.eot[1::2])
    torch.testing.assert_close(images, torch.tensor(GOLDEN["image"]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(texts, torch.tensor(GOLDEN["text"]), atol=1e-5, rtol=1e-5)
    tokens = method.match_tokens(batch.pixels)
    for row, (wrong, right) in enumerate(GOLDEN["match"]):
        one = slice(2 * row + 1, 2 * row + 2)
        output = method.match_of(batch.ids[one], batch.eot[one], tokens[row : row + 1])
        assert output.logits.item() == pytest.approx(right - wrong, abs=1e-5)
        assert output.scores.item() == pytest.approx(right, abs=1e-5)


@pytest.mark.parametrize("axis", ["sequence", "vocabulary"])
@pytest.mark.parametrize("name", ["cl", "pitm", "mlm", "prd", "mrtd"])
def test_a_loss_and_its_gradient_equal_those_of_the_released_code(name, axis, run, tmp_path):
    golden = "" if axis == "sequence" else "_vocabulary"
    method = drawn_method(tmp_path / "best.pth", distill_axis=axis)
    loss = run(method, 0)[name]
    loss.backward()
    padding = method.text_tower.bert.words.weight.grad
    if padding is not None:
        padding[0] = 0  # these have no gradient in the released code, and are left out
    norm = torch.stack(
        [p.grad.double().norm() for p in method.parameters() if p.grad is not None]
    ).norm()
    assert loss.item() == pytest.approx(GOLDEN[f"losses{golden}"][name], rel=1e-5)
    assert norm.item() == pytest.approx(GOLDEN[f"norms{golden}"][name], rel=1e-5)
    assert run.draws == GOLDEN["draws"]


def test_three_steps_with_queues_equal_those_of_the_released_code(run, tmp_path):
    """By gradient descent without momentum. The queues wrap around, since 4 does not divide 11."""
    method = drawn_method(tmp_path / "best.pth", distill_axis="sequence")
    weights = finegrain.load_recipe(ROOT / "recipes/rasa_cuhk_pedes.py").losses
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=SHAPES["lr"])
    for step, golden in enumerate(GOLDEN["three_steps"]):
        losses = run(method, step)
        optimizer.zero_grad()
        torch.stack([weights[name] * loss for name, loss in losses.items()]).sum().backward()
        optimizer.step()
        method.after_step()
        told = [losses[name].item() for name in ("cl", "pitm", "mlm", "prd", "mrtd")]
        assert told == pytest.approx(golden, rel=1e-4)
    after, state = GOLDEN["after"], export_rasa(method)
    assert state["queue_ptr"].item() == after["queue_ptr"]
    assert state["idx_queue"].flatten().tolist() == after["idx_queue"]
    for name in FEATURES:
        torch.testing.assert_close(state[name], torch.tensor(after[name]), atol=1e-5, rtol=1e-5)
    for name, (total, norm) in after["momentum"].items():
        assert state[name].double().sum().item() == pytest.approx(total, abs=1e-4)
        assert state[name].double().norm().item() == pytest.approx(norm, rel=1e-5)
    for name, norm in after["online"].items():
        assert state[name].double().norm().item() == pytest.approx(norm, rel=1e-5)
