"""Re-ranking at RaSa's size, compared with a baseline that works as the released code does.

The baseline was written from the description of the released code: 128 pictures per query; captions
padded to 50 tokens; the words repeated for each picture; keys and values of 577 tokens per picture
in each of six layers, although they do not depend on the query; fp32 in eager PyTorch. The layers
that read only words are timed for finegrain, and not for the baseline.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import finegrain
from finegrain.encoder import Encoder
from finegrain.exporters import ExportProfile
from finegrain.exporters.to_onnx import image_graph_with_tokens, match_graph, text_graph
from finegrain.methods.match_head import from_codes
from finegrain.methods.rasa import Rasa, RasaConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.models.fusion_bert import words_before
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD
from finegrain.plan import IMAGE, MATCH, TEXT, TOKENIZER, Manifest, Plan, write_plan
from finegrain.records import PictureTokens
from finegrain.rerank import MATCHED_AT_ONCE

BASELINE_TOKENS = 50
CANDIDATES = 128
BASELINE = "plain"  # its key in the files of results
CAPTIONS = {
    "a query": "woman in red coat",
    # A little longer than captions of CUHK-PEDES, which have 24 words on average.
    "a caption": (
        "a young woman with long dark hair is wearing a bright red coat over blue jeans and white "
        "shoes and carries a black bag on her left shoulder"
    ),
}


@pytest.fixture(scope="module")
def config(short: bool) -> RasaConfig:
    """RaSa's sizes with CLIP's vocabulary. The short form has fewer layers."""
    whole = RasaConfig(text=AlbefTextConfig(vocabulary=49408), queue=64)
    if not short:
        return whole
    text = replace(whole.text, depth=1, fusion_depth=2)
    return replace(whole, image=replace(whole.image, depth=1), text=text)


@pytest.fixture(scope="module")
def rasa(config: RasaConfig) -> Rasa:
    """RaSa with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return config.build(("cl", "pitm")).eval()


@pytest.fixture(scope="module")
def matcher(rasa: Rasa, config: RasaConfig, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The exported match head, with as many threads as torch uses."""
    profile = ExportProfile(name="onnx_fp32")
    image, context = config.image, config.text.context_length
    tokens, width = 577, image.channels
    members = {
        TEXT: text_graph(rasa, context_length=context, opset=profile.opset),
        IMAGE: image_graph_with_tokens(rasa, height=384, width=384, opset=profile.opset),
        MATCH: match_graph(
            rasa, tokens=tokens, width=width, context_length=context, opset=profile.opset
        ),
        TOKENIZER: config.text.tokenizer().to_json().encode(),
    }
    manifest = Manifest(
        method="rasa", embed_dim=config.embed_dim, height=384, width=384, fit="stretch",
        mean=CLIP_MEAN, std=CLIP_STD, context_length=context,
        precision=dict.fromkeys((TEXT, IMAGE, MATCH), "fp32"), checkpoint="0" * 64, recipe={},
        parity={}, made_by=finegrain.__version__, sha256={},
        match={"tokens": tokens, "width": width, "weight": 1.0},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("rasa") / "model.plan"
    write_plan(path, manifest, members)
    encoder = Encoder.from_plan(Plan(path), threads=torch.get_num_threads())
    Path(path).unlink()  # pytest keeps the folders of three runs, and this one is large
    return encoder


@pytest.fixture(scope="module")
def candidates(config: RasaConfig) -> PictureTokens:
    rng = np.random.default_rng(0)
    shape = (CANDIDATES, 577, config.image.channels)
    return PictureTokens(
        codes=rng.integers(-127, 128, shape, np.int8),
        scales=np.full(shape[:2], 3 / 127, np.float32),
    )


@pytest.mark.parametrize("kind", list(CAPTIONS))
def test_rerank(
    kind: str,
    rasa: Rasa,
    matcher: Encoder,
    candidates: PictureTokens,
    race: Callable[..., dict[str, Any]],
    record: Callable[..., None],
    short: bool,
) -> None:
    caption = CAPTIONS[kind]
    count = 16 if short else CANDIDATES
    pictures = candidates[:count]
    tokens = from_codes(torch.from_numpy(pictures.codes), torch.from_numpy(pictures.scales))
    words = matcher.tokenizer.encode([caption])
    ids = torch.nn.functional.pad(
        torch.from_numpy(words.ids), (0, BASELINE_TOKENS - words.ids.shape[1])
    )
    eot = torch.from_numpy(words.eot)
    bert = rasa.text_tower.bert
    with torch.inference_mode():
        seen = words_before(eot, BASELINE_TOKENS).expand(count, -1)
        read = bert.read(ids, seen[:1]).expand(count, -1, -1)

    def ours(_: str) -> np.ndarray[Any, Any]:
        match = matcher.matching(caption)
        starts = range(0, count, MATCHED_AT_ONCE)
        parts = [match(pictures[slice(a, a + MATCHED_AT_ONCE)]) for a in starts]
        return np.concatenate([part.logits for part in parts])

    @torch.inference_mode()
    def baseline(_: str) -> torch.Tensor:
        logits = rasa.itm_head(bert.fuse(read, seen, tokens)[:, 0])
        return logits[:, 1] - logits[:, 0]

    # Times are comparable only if the results are equal.
    np.testing.assert_allclose(ours(caption), baseline(caption).numpy(), atol=1e-3)

    summary = race(ours, baseline, [caption], rounds=2 if short else 5, warm_up=1)
    short_ids, own = torch.from_numpy(words.ids), eot
    macs = {
        BASELINE: _macs(lambda: baseline(caption)),
        "finegrain": _macs(lambda: rasa.match_of(short_ids, own, tokens)),
    }
    record(
        f"rerank_{kind.split()[-1]}",
        {
            **summary,
            "candidates": count,
            "words": len(caption.split()),
            "macs": macs,
            "macs_ratio": round(macs[BASELINE] / macs["finegrain"], 2),
            "bytes_a_picture": int(pictures.codes[0].nbytes + pictures.scales[0].nbytes),
            "model": "RaSa, ViT-B/16 at 384x384, random weights",
        },
    )
    assert summary["ratio"] > 1


def _macs(work: Callable[[], object]) -> int:
    """Number of multiply-accumulate operations, counted by PyTorch."""
    with warnings.catch_warnings(), torch.inference_mode(), FlopCounterMode(display=False) as count:
        warnings.simplefilter("ignore")
        work()
    return int(count.get_total_flops()) // 2
