"""Configuration of a CLIP that its tensors do not determine: read, compared, or requested."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finegrain.errors import WeightsError
from finegrain.methods import ClipConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.zoo.clip_config import KnownClip, read_clip_config
from finegrain.zoo.clip_sizes import ImageSizes, TowerSizes, read_clip_sizes
from finegrain.zoo.loading import export_irra, load_clip_weights

IMAGE = VitConfig(height=32, width=32, patch=8, channels=64, depth=2, heads=1)
TEXT = TextConfig(vocabulary=40, context_length=9, channels=128, depth=1, heads=2)
CLIP = ClipConfig(image=IMAGE, text=TEXT, embed_dim=16)
ARCHIVE = {n: torch.tensor(1) for n in ("input_resolution", "context_length", "vocab_size")}


def state(config=CLIP):
    torch.manual_seed(0)
    exported = export_irra(config.build())
    return {name.removeprefix("base_model."): tensor for name, tensor in exported.items()}


def with_activation(activation, config=CLIP):
    return replace(
        config,
        image=replace(config.image, activation=activation),
        text=replace(config.text, activation=activation),
    )


def open_clip(vision=None, text=None, **model):
    return {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "width": 64, "patch_size": 8} | (vision or {}),
            "text_cfg": {"width": 128, "heads": 2} | (text or {}),
        }
        | model
    }


def hugging_face(vision=None, text=None, **top):
    return {
        "model_type": "clip",
        "vision_config": {"image_size": 32, "num_attention_heads": 1} | (vision or {}),
        "text_config": {"num_attention_heads": 2} | (text or {}),
    } | top


@pytest.mark.parametrize(
    ("shown", "fit", "interpolation"),
    [
        ({}, None, None),
        ({"resize_mode": "shortest", "interpolation": "bicubic"}, "crop", "bicubic"),
        ({"resize_mode": "squash", "interpolation": "bilinear"}, "stretch", "bilinear"),
        ({"interpolation": "random"}, None, "bicubic"),
    ],
)
def test_the_configuration_of_open_clip_states_the_resizing(read, shown, fit, interpolation):
    known = read(open_clip() | {"preprocess_cfg": shown})
    assert (known.fit, known.interpolation) == (fit, interpolation)


@pytest.mark.parametrize(
    ("shown", "fit", "interpolation"),
    [
        ({"resample": 3, "do_center_crop": True}, "crop", "bicubic"),
        ({"resample": 2, "do_center_crop": False}, "stretch", "bilinear"),
        ({}, None, None),
    ],
)
def test_the_configuration_of_hugging_face_states_the_resizing(
    read, tmp_path, shown, fit, interpolation
):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(shown))
    known = read(hugging_face(), "config.json")
    assert (known.fit, known.interpolation) == (fit, interpolation)


@pytest.mark.parametrize(
    "shown", [{"resize_mode": "longest"}, {"interpolation": "lanczos"}, {"resize_mode": ["squash"]}]
)
def test_unsupported_resizing_is_refused(read, shown):
    with pytest.raises(WeightsError, match="finegrain resizes pictures for it only by"):
        read(open_clip() | {"preprocess_cfg": shown})


@pytest.fixture
def read(tmp_path):
    def written(content, file="open_clip_config.json", name="model.bin", tensors=None):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / file).write_text(text)
        layout = "openai_clip" if file.startswith("open_clip") else "hf_clip"
        return read_clip_config(tmp_path / name, tensors or {}, layout)

    return written


@pytest.mark.parametrize(
    ("content", "activation"),
    [
        (open_clip(), "gelu"),
        (open_clip(quick_gelu=False), "gelu"),
        (open_clip(quick_gelu=True), "quick_gelu"),
        (open_clip() | {"architecture": "ViT-B-16-quickgelu"}, "quick_gelu"),
        (open_clip()["model_cfg"], "gelu"),
    ],
)
def test_open_clip_states_its_activation(read, content, activation):
    known = read(content)
    assert (known.activation, known.image_heads, known.text_heads) == (activation, 1, 2)
    assert known.size == (32, 32)


@pytest.mark.parametrize(
    ("vision", "text", "activation"),
    [({}, {}, "quick_gelu"), ({"hidden_act": "gelu"}, {"hidden_act": "gelu"}, "gelu")],
)
def test_hugging_face_states_its_activation(read, vision, text, activation):
    known = read(hugging_face(vision, text), "config.json")
    assert (known.activation, known.image_heads, known.text_heads) == (activation, 1, 2)


def test_normalisation_and_heads_of_another_width(read, tmp_path):
    shown = {"preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
    known = read(open_clip({"width": 1280, "head_width": 80}) | shown)
    assert (known.mean, known.std, known.image_heads) == ((0.0,) * 3, (1.0,) * 3, 16)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.3]})
    )
    known = read(hugging_face(), "config.json")
    assert (known.mean, known.std) == ((0.5,) * 3, (0.2, 0.2, 0.3))


def test_the_configuration_of_the_layout_has_priority(read, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(hugging_face()))
    assert read(open_clip()).activation == "gelu"
    (tmp_path / "open_clip_config.json").unlink()
    assert read_clip_config(tmp_path / "model.bin", {}, "openai_clip").activation == "quick_gelu"


def test_other_configurations_are_ignored(read, tmp_path):
    assert read({"model_type": "bert"}, "config.json") == KnownClip()
    quick = tmp_path / "vit_base_patch16_clip_quickgelu_224.bin"
    assert read_clip_config(quick, {}, "openai_clip").activation == "quick_gelu"


def test_openais_archive_is_recognised_by_its_content(tmp_path):
    known = read_clip_config(tmp_path / "ViT-B-16.pt", state() | ARCHIVE, "openai_clip")
    assert (known.activation, known.image_heads, known.text_heads) == ("quick_gelu", 1, 2)


@pytest.mark.parametrize(
    ("content", "file", "message"),
    [
        ("{", "open_clip_config.json", "cannot be read as JSON"),
        ("[" * 100_000, "open_clip_config.json", "cannot be read as JSON|expected an object"),
        ("[1]", "config.json", "expected an object"),
        ("1" * (1 << 21), "config.json", "expected at most 1048576 bytes"),
        (open_clip(text={"no_causal_mask": True}), "open_clip_config.json", "no_causal_mask = Tr"),
        (open_clip(text={"pool_type": "last"}), "open_clip_config.json", "pool_type = 'last'"),
        (open_clip({"norm_kwargs": {"eps": 1e-6}}), "open_clip_config.json", "norm_kwargs"),
        (open_clip({"timm_model_name": "x"}), "open_clip_config.json", "timm_model_name = 'x'"),
        (open_clip(text={"hf_tokenizer_name": "T"}), "open_clip_config.json", "hf_tokenizer_name"),
        (open_clip(text={"heads": "2"}), "open_clip_config.json", "whole number from 1"),
        (open_clip({"head_width": 0}), "open_clip_config.json", "whole number from 1"),
        (open_clip() | {"model_cfg": 3}, "open_clip_config.json", "expected model_cfg as an obj"),
        (
            open_clip() | {"preprocess_cfg": {"mean": [1, 2]}},
            "open_clip_config.json",
            "mean as three",
        ),
        (
            open_clip() | {"preprocess_cfg": {"std": [0, 1, 1]}},
            "open_clip_config.json",
            "std as three",
        ),
        (hugging_face(model_type="siglip"), "config.json", "type 'siglip'; expected 'clip'"),
        (hugging_face({"hidden_act": "gelu"}), "config.json", "the same for both towers"),
        (hugging_face({"layer_norm_eps": 1e-6}), "config.json", "layer_norm_eps 1e-06"),
    ],
)
def test_configurations_of_unsupported_towers_are_refused(read, content, file, message):
    with pytest.raises(WeightsError, match=message):
        read(content, file)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_either_read_or_refused(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("any")
    content = {"model_cfg": {"vision_cfg": {"width": value}, "text_cfg": {"heads": value}}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    try:
        known = read_clip_config(folder / "model.bin", {}, "openai_clip")
    except WeightsError:
        return
    assert known.activation == "gelu"


# --- comparison with a model ----------------------------------------------------------------


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_a_model_of_another_activation_is_refused(activation, tmp_path):
    torch.save(state(), tmp_path / "model.bin")
    content = open_clip(quick_gelu=activation == "quick_gelu")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    other = "gelu" if activation == "quick_gelu" else "quick_gelu"
    with pytest.raises(WeightsError, match=f"--set method.image.activation={activation}"):
        load_clip_weights(with_activation(other).build(), tmp_path / "model.bin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_clip_weights(with_activation(activation).build(), tmp_path / "model.bin")


def test_a_model_of_other_heads_is_refused(tmp_path):
    torch.save(state() | ARCHIVE, tmp_path / "ViT-B-16.pt")
    config = replace(CLIP, text=replace(TEXT, heads=4))
    with pytest.raises(WeightsError, match=r"has heads 2.* text tower has 4"):
        load_clip_weights(config.build(), tmp_path / "ViT-B-16.pt")


def test_an_unknown_activation_is_reported(tmp_path):
    torch.save(state(), tmp_path / "model.bin")
    with pytest.warns(UserWarning, match=r"the recipe's quick_gelu is used.*activation=gelu"):
        load_clip_weights(CLIP.build(), tmp_path / "model.bin")


# --- sizes ----------------------------------------------------------------------------------


def test_sizes_are_read_from_the_tensors():
    sizes = read_clip_sizes(CLIP.build().state_dict())
    assert sizes.image == ImageSizes(
        channels=64, depth=2, patch=8, patches=16, side=32, embed_dim=16
    )
    assert sizes.text == TowerSizes(channels=128, depth=1)
    assert (sizes.vocabulary, sizes.context_length) == (40, 9)


def test_other_tensors_are_not_a_clip():
    tensors = CLIP.build().state_dict()
    with pytest.raises(WeightsError, match=r"conv1.weight of 4 dimensions; .*no such tensor"):
        read_clip_sizes({})
    wrong = tensors | {"image_tower.proj": torch.ones(3)}
    with pytest.raises(WeightsError, match=r"proj of 2 dimensions; .*shape \(3,\)"):
        read_clip_sizes(wrong)
    tall = tensors | {"image_tower.positional_embedding": torch.ones(193, 64)}
    assert read_clip_sizes(tall).image.side is None


@pytest.mark.parametrize(("patches", "size"), [(192, (192, 64)), (3, (24, 8)), (196, None)])
def test_the_shape_of_person_pictures_is_read_from_the_positions(patches, size):
    image = read_clip_sizes(
        CLIP.build().state_dict()
        | {"image_tower.positional_embedding": torch.ones(1 + patches, 64)}
    ).image
    assert image.person_size == size


def test_a_shorter_context_uses_the_first_positions(tmp_path):
    torch.save(state() | ARCHIVE, tmp_path / "clip.pt")
    whole, short = CLIP.build().eval(), replace(CLIP, text=replace(TEXT, context_length=5)).build()
    load_clip_weights(whole, tmp_path / "clip.pt")
    load_clip_weights(short.eval(), tmp_path / "clip.pt")
    ids, eot = torch.tensor([[1, 4, 7, 39, 0]]), torch.tensor([3])
    torch.testing.assert_close(short.encode_texts(ids, eot), whole.encode_texts(ids, eot))
    longer = replace(CLIP, text=replace(TEXT, context_length=12)).build()
    with pytest.raises(WeightsError, match=r"of another shape: text_tower\.positional_embedding"):
        load_clip_weights(longer, tmp_path / "clip.pt")
