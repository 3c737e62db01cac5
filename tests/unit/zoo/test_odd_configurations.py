"""Configurations of published weights in which one value is replaced by an invalid one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from fixtures.published_tokenizers import write_gemma

from finegrain.errors import FinegrainError, WeightsError
from finegrain.exporters.onnx_pair.files import find_pair
from finegrain.exporters.onnx_pair.settings import is_pooled, read_captions, read_pixels
from finegrain.zoo import hf_siglip, open_clip_towers
from finegrain.zoo.clip_config import read_clip_config
from finegrain.zoo.json_file import read_json

ODD: tuple[Any, ...] = (None, True, -1, 10**30, "x", [], ["x"], {}, {"eps": "x"})

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu_pytorch_tanh",
}
SIGLIP = {
    "model_type": "siglip",
    "vision_config": {**TOWER, "image_size": 16, "patch_size": 8},
    "text_config": {**TOWER, "vocab_size": 600, "max_position_embeddings": 8},
}
GELU = {**TOWER, "hidden_act": "gelu"}
CLIP = {"vision_config": {**GELU, "image_size": 16}, "text_config": GELU}
PICTURES = {
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "size": {"height": 16, "width": 16},
    "resample": 3,
    "do_center_crop": False,
}
TOKENIZER = {"pad_token": "<pad>", "tokenizer_class": "GemmaTokenizer", "model_max_length": 64}
OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "timm_model_name": "resnet10t", "timm_proj": "linear"},
        "text_cfg": {
            "width": 64,
            "heads": 1,
            "layers": 1,
            "vocab_size": 600,
            "norm_kwargs": {"eps": 1e-6},
            "mlp_ratio": 4.0,
            "hf_tokenizer_name": "x",
            "tokenizer_kwargs": {"clean": "lower"},
        },
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "shortest"},
}
FILES = {
    "open_clip_config.json": OPEN_CLIP,
    "preprocessor_config.json": PICTURES,
    "tokenizer_config.json": TOKENIZER,
}


def siglip(folder: Path) -> None:
    hf_siglip.describe(folder / "model.safetensors", {})


def open_clip(folder: Path) -> None:
    open_clip_towers.describe(folder / "open_clip_model.safetensors", {})


def clip(folder: Path) -> None:
    read_clip_config(folder / "model.safetensors", {}, "hf_clip")


def pair(folder: Path) -> None:
    files = find_pair(folder)
    is_pooled(files)
    read_pixels(files)
    read_captions(files, fixed_length=None)


def changed(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Copies of a configuration, each with an invalid value in one place."""
    for name, value in values.items():
        for odd in ODD:
            yield {**deepcopy(values), name: odd}
        if isinstance(value, dict):
            for inner in changed(value):
                yield {**values, name: inner}


@pytest.mark.parametrize(
    ("read", "config", "file"),
    [
        (siglip, SIGLIP, "config.json"),
        (siglip, SIGLIP, "tokenizer_config.json"),
        (open_clip, SIGLIP, "open_clip_config.json"),
        (clip, CLIP, "config.json"),
        (clip, CLIP, "preprocessor_config.json"),
        (pair, SIGLIP, "config.json"),
        (pair, SIGLIP, "tokenizer_config.json"),
    ],
)
def test_each_invalid_value_is_read_or_refused(tmp_path, read, config, file):
    write_gemma(tmp_path, lower=True)
    for name in ("vision_model", "text_model"):
        (tmp_path / "onnx").mkdir(exist_ok=True)
        (tmp_path / f"onnx/{name}.onnx").touch()
    for name, values in {"config.json": config, **FILES}.items():
        (tmp_path / name).write_text(json.dumps(values))
    read(tmp_path)
    messages: list[str] = []
    for values in changed(json.loads((tmp_path / file).read_text())):
        (tmp_path / file).write_text(json.dumps(values))
        try:
            read(tmp_path)
        except FinegrainError as error:
            messages.append(str(error))
    assert messages
    assert max(map(len, messages)) < 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "expected each name once, got 'c' twice"),
        ('{"a": NaN}', "expected a finite number, got NaN"),
        ('{"a": 1e999}', "expected a finite number, got 1e999"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "at most 32 levels"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read as JSON"),
    ],
)
def test_ambiguous_json_is_refused(tmp_path, text, message):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(WeightsError, match=message):
        read_json(file)
