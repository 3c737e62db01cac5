"""Models of open_clip with other towers than CLIP's, from files, compared with open_clip."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from fixtures.published_models import Theirs, assert_equal, shake
from fixtures.published_tokenizers import XLM_R_IDS, write_gemma, write_unigram
from open_clip.model import CustomTextCLIP
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from safetensors.torch import save_file
from tokenizers import processors
from transformers import XLMRobertaConfig

from finegrain.preprocess.cleaning import NO_CLEANING
from finegrain.preprocess.tokenizer_file import read_tokenizer

DIM, SIDE, LENGTH = 64, 64, 20
SIGLIP_TEXT = {
    "context_length": LENGTH,
    "vocab_size": 600,
    "hf_tokenizer_name": "its-own",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "width": 48,
    "heads": 3,
    "layers": 2,
    "mlp_ratio": 3.7362,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}
SIGLIP_PICTURES = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def _sides(side):
    return (side, side) if isinstance(side, int) else side


def write_model(folder, model_cfg, preprocess_cfg):
    """Write a model with random weights as open_clip publishes it; returns the model and the
    ids."""
    torch.manual_seed(0)
    bias = (
        {"init_logit_bias": model_cfg["init_logit_bias"]} if "init_logit_bias" in model_cfg else {}
    )
    sizes = {k: v for k, v in model_cfg.items() if k not in ("custom_text", "init_logit_bias")}
    model = CustomTextCLIP(**sizes, **bias)
    if "hf_model_name" in sizes["text_cfg"]:
        model.text.transformer.eval()
    shake(model)
    with (
        torch.no_grad()
    ):  # random statistics of batch normalisation, so that pictures have different embeddings
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        model.visual.train()(torch.rand(8, 3, *_sides(model.visual.image_size)))
    model.eval()
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return model


def theirs_of(model, preprocess_cfg, ids, pad_id):
    side = model.visual.image_size
    pixels = open_clip.image_transform(
        side if isinstance(side, int) else tuple(side), is_train=False, **preprocess_cfg
    )
    return Theirs(
        pixels=pixels, ids=ids, images=model.encode_image, texts=model.encode_text, pad_id=pad_id
    )


@pytest.mark.slow
@pytest.mark.parametrize("generation", [1, 2])
def test_siglip_is_read_from_its_folder(tmp_path, generation):
    text = SIGLIP_TEXT | ({"act_kwargs": {"approximate": "tanh"}} if generation == 2 else {})
    if generation == 1:
        model_file = write_unigram(tmp_path)
        own = read_tokenizer(model_file, context_length=9, cleaning=NO_CLEANING, vocabulary=600)
        (tmp_path / "tokenizer.json").write_text(own.to_json(), encoding="utf-8")
        model_file.unlink()
        pad, tokenizer_class = "</s>", "PreTrainedTokenizerFast"
    else:
        write_gemma(tmp_path, lower=False)
        pad, tokenizer_class = "<pad>", "PreTrainedTokenizerFast"
    settings = {"tokenizer_class": tokenizer_class, "pad_token": pad}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    cfg = {
        "embed_dim": 96,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit3",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": text,
    }
    model = write_model(tmp_path, cfg, SIGLIP_PICTURES)
    tokenizer = HFTokenizer(str(tmp_path), context_length=LENGTH, clean="canonicalize")
    pad_id = tokenizer.tokenizer.pad_token_id
    published, manifest = assert_equal(
        tmp_path, theirs_of(model, SIGLIP_PICTURES, tokenizer, pad_id), tmp_path
    )
    assert published.layout == "open_clip_towers"
    assert (manifest.fit, manifest.interpolation) == ("stretch", "bicubic")
    assert manifest.logit_bias == pytest.approx(model.logit_bias.item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trunk", "pool", "causal"),
    # The image tower of MobileCLIP-B, vit_base_mci_224, has no smaller variant.
    [("fastvit_mci0", "avg", False), ("test_vit", "token", True)],
)
def test_mobileclip_is_read_from_its_folder(tmp_path, trunk, pool, causal):
    side = 160 if trunk == "test_vit" else 64
    cfg = {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": trunk,
            "timm_model_pretrained": False,
            "timm_pool": pool,
            "timm_proj": None,
            "timm_drop": 0.0,
            "timm_drop_path": 0.0,
            "image_size": side,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
            "no_causal_mask": not causal,
        },
    }
    pictures = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}
    pictures |= {"resize_mode": "shortest"}
    model = write_model(tmp_path, cfg, pictures)
    published, manifest = assert_equal(
        tmp_path, theirs_of(model, pictures, SimpleTokenizer(), 0), tmp_path
    )
    assert (manifest.fit, manifest.interpolation) == ("crop", "bilinear")
    assert (list(manifest.mean), list(manifest.std)) == ([0, 0, 0], [1, 1, 1])
    assert published.recipe.method.text.causal is causal


@pytest.mark.slow
def test_xlm_r_is_read_from_its_folder(tmp_path):
    write_unigram(tmp_path, special=XLM_R_IDS)
    own = read_tokenizer(
        tmp_path / "spiece.model", context_length=9, cleaning=NO_CLEANING, vocabulary=600
    )._tokenizer
    own.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    (tmp_path / "tokenizer.json").write_text(own.to_str(), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    towers = XLMRobertaConfig(
        vocab_size=600,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=96,
        max_position_embeddings=40,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    cfg = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {
            "hf_model_name": "xlm-roberta-base",
            "hf_model_pretrained": False,
            "hf_tokenizer_name": "xlm-roberta-base",
            "hf_pooler_type": "mean_pooler",
            "context_length": LENGTH,
        },
    }
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # otherwise the real configuration would be downloaded
        patch.setattr(open_clip.hf_model.AutoConfig, "from_pretrained", lambda name: towers)
        model = write_model(tmp_path, cfg, {})
    tokenizer = HFTokenizer(str(tmp_path), context_length=LENGTH)
    published, manifest = assert_equal(tmp_path, theirs_of(model, {}, tokenizer, 1), tmp_path)
    assert published.recipe.method.text.pool == "mean"
    assert manifest.method == "bert_clip"
