"""Published layouts with incomplete or damaged files, or files of another model."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from fixtures.published_tokenizers import write_gemma, write_word_pieces
from safetensors.torch import save_file
from transformers import SiglipConfig, SiglipModel

from finegrain.errors import DataError, FinegrainError, RecipeError, WeightsError
from finegrain.runs.published import read_published
from finegrain.zoo import chinese_clip, hf_siglip, open_clip_towers
from finegrain.zoo.files import weight_file
from finegrain.zoo.recognition import recognise

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
}


@pytest.fixture
def siglip(tmp_path):
    model = SiglipModel(
        SiglipConfig(
            text_config={**SIZES, "vocab_size": 600, "max_position_embeddings": 8},
            vision_config={**SIZES, "image_size": 16, "patch_size": 8},
        )
    )
    model.save_pretrained(tmp_path)
    write_gemma(tmp_path, lower=True)
    return tmp_path


def change(file, **values):
    settings = json.loads(file.read_text()) if file.is_file() else {}
    for name, value in values.items():
        part = settings
        *parents, last = name.split("__")
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = value
    file.write_text(json.dumps(settings))


def test_a_complete_folder_is_read(siglip):
    assert read_published(siglip).layout == "hf_siglip"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(siglip, name):
    (siglip / name).unlink()
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        read_published(siglip)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_a_damaged_file_is_named(siglip, name, content):
    (siglip / name).write_text(content)
    with pytest.raises(FinegrainError, match=name.replace(".", r"\.")):
        read_published(siglip)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text_config__num_hidden_layers", 10**6),
        ("text_config__vocab_size", 10**12),
        ("text_config__max_position_embeddings", 2**40),
        ("vision_config__hidden_size", 2**22),
        ("vision_config__intermediate_size", 10**15),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(siglip, field, value):
    change(siglip / "config.json", **{field: value})
    with pytest.raises((RecipeError, WeightsError)):
        read_published(siglip)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_type", "siglip2", "naflex"),
        ("text_config__hidden_size", "768", "whole number"),
        ("vision_config__hidden_act", "relu", "relu"),
        ("text_config__layer_norm_eps", -1, "above 0"),
    ],
)
def test_a_model_of_another_kind_is_refused(siglip, field, value, message):
    change(siglip / "config.json", **{field: value})
    with pytest.raises(WeightsError, match=message):
        read_published(siglip)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": {"height": 32, "width": 32}}, "16x16"),
        ({"resample": 0}, "resample"),
        ({"do_rescale": False}, "do_rescale"),
        ({"image_mean": [0.5, 0.5]}, "three numbers"),
        (
            {"do_center_crop": True, "size": {"shortest_edge": 20}, "crop_size": 16},
            "resizes pictures to 20x20",
        ),
        ({"do_center_crop": False, "size": {"shortest_edge": 16}}, "no fixed size"),
        ({"size": {"longest_edge": 16}}, "shortest_edge"),
    ],
)
def test_preprocessing_that_is_not_supported_is_refused(siglip, values, message):
    change(siglip / "preprocessor_config.json", **values)
    with pytest.raises(WeightsError, match=message):
        read_published(siglip)


def test_a_wrong_header_of_a_safetensors_file_is_refused(siglip):
    file = siglip / "model.safetensors"
    whole = file.read_bytes()
    for length in (2**60, len(whole) * 2, 3):
        file.write_bytes(struct.pack("<Q", length) + whole[8:])
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            read_published(siglip)


def test_unknown_and_missing_tensors_are_listed(siglip):
    file = siglip / "model.safetensors"
    state = {f"vision_model.extra.{i}": torch.ones(1) for i in range(12)}
    state |= SiglipModel.from_pretrained(siglip).state_dict()
    save_file({n: t.contiguous().clone() for n, t in state.items()}, file)
    with pytest.raises(WeightsError, match=r"12 tensors .*extra\.7, \.\.\."):
        read_published(siglip)
    kept = {n: t for n, t in state.items() if "extra" not in n and "layer_norm1.bias" not in n}
    save_file({n: t.contiguous().clone() for n, t in kept.items()}, file)
    with pytest.raises(WeightsError, match="2 missing"):
        read_published(siglip)


def test_the_tokenizer_of_another_model_is_refused(siglip):
    change(siglip / "config.json", text_config__vocab_size=300)
    with pytest.raises(DataError, match="the tokenizer of another model"):
        read_published(siglip)


def test_two_candidates_are_listed_and_one_is_used(tmp_path):
    (tmp_path / "a.pt").touch()
    assert weight_file(tmp_path) == tmp_path / "a.pt"
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(WeightsError, match=r"2 weight files.*a\.pt, b\.safetensors"):
        weight_file(tmp_path)


def test_the_file_of_open_clip_is_preferred_next_to_its_configuration(tmp_path):
    for name in ("model.safetensors", "open_clip_model.safetensors"):
        (tmp_path / name).touch()
    assert weight_file(tmp_path).name == "model.safetensors"
    (tmp_path / "open_clip_config.json").touch()
    assert weight_file(tmp_path).name == "open_clip_model.safetensors"


def open_clip_config(folder, **values):
    file = folder / "open_clip_config.json"
    change(file, **{f"model_cfg__{name}": value for name, value in values.items()})
    return folder / "open_clip_model.safetensors"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_cfg__pool_type": "first"}, "pool_type"),
        ({"text_cfg__embed_cls": True}, "embed_cls"),
        ({"text_cfg__tokenizer_kwargs": {"strip_sep_token": True}}, "strip_sep_token"),
        ({"text_cfg__tokenizer_kwargs": {"clean": "none"}}, "clean"),
        ({"text_cfg__act_kwargs": {"approximate": "none"}}, "act_kwargs"),
        ({"text_cfg__hf_tokenizer_name": "x"}, r"no tokenizer\.json"),
        ({"text_cfg__hf_model_name": "google/mt5-base"}, "mt5"),
        ({"vision_cfg__timm_pool": "abs_attn"}, "abs_attn"),
        ({"vision_cfg__timm_proj": "conv"}, "timm_proj"),
        ({"embed_dim": None}, "whole number"),
    ],
)
def test_towers_of_open_clip_that_are_not_supported_are_refused(tmp_path, values, message):
    known = {"embed_dim": 8, "vision_cfg__timm_model_name": "test_vit", "text_cfg__width": 8}
    file = open_clip_config(tmp_path, **(known | values))
    with pytest.raises(WeightsError, match=message):
        open_clip_towers.describe(file, {})


def test_open_clip_towers_need_their_configuration(tmp_path):
    save_file({"visual.trunk.a": torch.ones(1)}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(WeightsError, match=r"open_clip_config\.json"):
        read_published(tmp_path)


def test_chinese_clip_needs_its_vocabulary_and_no_resnet(tmp_path):
    with pytest.raises(WeightsError, match="ResNet"):
        chinese_clip.convert({"visual.layer1.0.conv1.weight": torch.ones(1)})
    state = {
        "visual.conv1.weight": torch.ones(64, 3, 8, 8),
        "visual.positional_embedding": torch.ones(5, 64),
        "visual.proj": torch.ones(64, 16),
        "bert.embeddings.word_embeddings.weight": torch.ones(9, 64),
        "bert.embeddings.position_embeddings.weight": torch.ones(60, 64),
        "bert.encoder.layer.0.intermediate.dense.weight": torch.ones(128, 64),
    }
    with pytest.raises(WeightsError, match=r"no tokenizer\.json or vocab\.txt"):
        chinese_clip.describe(tmp_path / "clip_cn.pt", state)
    write_word_pieces(tmp_path)
    described = chinese_clip.describe(tmp_path / "clip_cn.pt", state)
    assert (described.text.depth, described.text.heads, described.embed_dim) == (1, 1, 16)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("visual.trunk.patch_embed.proj.weight", "open_clip_towers"),
        ("text.transformer.embeddings.word_embeddings.weight", "open_clip_towers"),
        (hf_siglip.MARK, "hf_siglip"),
        ("text_model.encoder.layer.0.output.dense.weight", "chinese_clip"),
        ("bert.embeddings.word_embeddings.weight", "chinese_clip"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "hf_clip"),
        ("visual.conv1.weight", "openai_clip"),
    ],
)
def test_layouts_are_distinguished_by_their_tensor_names(name, layout):
    assert recognise({name: torch.ones(1)}) == layout
