"""Training steps of IRRA at ViT-B/16 size, compared with a baseline like the released code.

The baseline was written from the description of the released code: fp32; attention as separate
products; the text tower twice with all 77 tokens, although it reads the same words both times;
logits over the vocabulary at every position, most of which the loss ignores; one optimiser group
for each tensor. On a GPU the released code computes in half precision, which a CPU may not support.
There, only the second and third of these differences remain.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import finegrain
from finegrain.losses import identity, sdm
from finegrain.methods import Batch, Irra
from finegrain.methods import irra as irra_module
from finegrain.methods.token_masking import Masked, mask_words
from finegrain.methods.two_towers import unit
from finegrain.training.loop import attention_backends
from finegrain.training.optim import make_optimizer
from finegrain.training.precision import autocast_dtype

RECIPE = finegrain.load_recipe(Path(__file__).parents[1] / "recipes" / "irra_cuhk_pedes.py")
BATCH = 8
CPU = torch.device("cpu")


def batch_of(seed: int) -> Batch:
    """Random pixels, and captions of about 24 words, as in CUHK-PEDES."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.zeros(BATCH, 77, dtype=torch.int32)
    lengths = torch.randint(15, 40, (BATCH,), generator=draw)
    for row, length in enumerate(lengths.tolist()):
        ids[row, 0], ids[row, length + 1] = 49406, 49407
        ids[row, 1 : length + 1] = torch.randint(1, 49405, (length,), generator=draw).int()
    return Batch(
        pixels=torch.randint(0, 256, (BATCH, 3, 384, 128), generator=draw, dtype=torch.uint8),
        ids=ids[:, : int(lengths.max()) + 2],
        eot=(lengths + 1).int(),
        pids=torch.randint(0, RECIPE.method.identities, (BATCH,), generator=draw),
        items=torch.arange(BATCH),
        where=("noise",) * BATCH,
    )


def baseline_losses(model: Irra, batch: Batch, masked: Masked) -> dict[str, Tensor]:
    image_tokens = model.image_tower.tokens(batch.pixels)
    text_tokens = model.text_tower.tokens(masked.ids)
    images, texts = image_tokens[:, 0], text_tokens[torch.arange(BATCH), batch.eot.long()]
    again = model.text_tower.tokens(masked.ids)
    scores = model.mlm_head(model.fusion(again, image_tokens)).flatten(0, 1)
    return {
        "sdm": sdm(unit(images), unit(texts), batch.pids, torch.tensor(50.0)),
        "id": identity(model.classifier(images), model.classifier(texts), batch.pids),
        "mlm": F.cross_entropy(scores, masked.targets.flatten().long(), ignore_index=0),
    }


@pytest.fixture(scope="module")
def model() -> Irra:
    torch.manual_seed(0)
    return RECIPE.method.build(RECIPE.losses).train()


def test_training_step(
    model: Irra,
    race: Callable[..., dict[str, Any]],
    record: Callable[..., None],
    short: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    twin = copy.deepcopy(model)
    fast = make_optimizer(model, RECIPE.optimizer)
    slow = torch.optim.Adam(
        [{"params": [p]} for p in twin.parameters()], lr=1e-5, eps=1e-3, foreach=False
    )
    dtype = autocast_dtype("auto", CPU)

    def finegrain_step(batch: Batch) -> float:
        fast.zero_grad(set_to_none=True)
        with (
            torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None),
            sdpa_kernel(attention_backends(CPU)),
        ):
            loss = torch.stack(list(model(batch).values())).sum()
        torch.autograd.backward(loss)
        fast.step()
        return loss.item()

    def baseline_step(batch: Batch) -> float:
        slow.zero_grad()
        masked = mask_words(twin._padded(batch.ids))
        with sdpa_kernel(SDPBackend.MATH):
            loss = torch.stack(list(baseline_losses(twin, batch, masked).values())).sum()
        torch.autograd.backward(loss)
        slow.step()
        return loss.item()

    # Times are comparable only if the losses are equal: the same masked words, in fp32.
    batch = batch_of(0)
    masked = mask_words(model._padded(batch.ids))
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(irra_module, "mask_words", lambda ids, rate: masked)
        for name, loss in model(batch).items():
            torch.testing.assert_close(loss, baseline_losses(twin, batch, masked)[name])

    batches = [batch_of(seed) for seed in range(4)]
    summary = race(finegrain_step, baseline_step, batches, rounds=2 if short else 8, warm_up=1)
    p50 = summary["p50_ms"]
    rate = {name: round(1e3 * BATCH / ms, 2) for name, ms in p50.items()}
    scale = {"batch": BATCH, "model": "IRRA, ViT-B/16 at 384x128, random weights"}
    record("training", {**summary, "pictures_per_second": rate, **scale, "precision": str(dtype)})
    assert summary["ratio"] > 1
