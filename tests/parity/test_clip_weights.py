"""Loaded weights give the outputs of the original implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from finegrain.errors import WeightsError
from finegrain.methods import ClipConfig
from finegrain.models import TextConfig, TimmConfig, VitConfig
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD
from finegrain.zoo.loading import load_clip_weights
from finegrain.zoo.positions import resize_positions

CONFIG = ClipConfig(
    image=VitConfig(height=32, width=32, patch=8, channels=32, depth=2, heads=2),
    text=TextConfig(vocabulary=64, context_length=12, channels=24, depth=2, heads=2),
    embed_dim=16,
)
PERSON = ClipConfig(
    image=VitConfig(height=64, width=32, patch=8, channels=32, depth=2, heads=2),
    text=CONFIG.text,
    embed_dim=16,
)


def hugging_face(config=CONFIG, *, seed=0):
    image, text = config.image, config.text
    torch.manual_seed(seed)
    theirs = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={
                "vocab_size": text.vocabulary,
                "max_position_embeddings": text.context_length,
                "hidden_size": text.channels,
                "intermediate_size": 4 * text.channels,
                "num_hidden_layers": text.depth,
                "num_attention_heads": text.heads,
                "hidden_act": text.activation,
                "eos_token_id": text.vocabulary - 1,
            },
            vision_config={
                "image_size": image.height,
                "patch_size": image.patch,
                "hidden_size": image.channels,
                "intermediate_size": 4 * image.channels,
                "num_hidden_layers": image.depth,
                "num_attention_heads": image.heads,
                "hidden_act": image.activation,
            },
            projection_dim=config.embed_dim,
        )
    ).eval()
    with (
        torch.no_grad()
    ):  # no parameter may be 0 or 1, otherwise exchanged tensors would go unnoticed
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return theirs


def openai_state(config=CONFIG, *, seed=1):
    """A state dict in OpenAI's layout, by its published names and shapes."""
    image, text, dim = config.image, config.text, config.embed_dim
    grid = image.height // image.patch * (image.width // image.patch)
    shapes = {
        "logit_scale": (),
        "positional_embedding": (text.context_length, text.channels),
        "text_projection": (text.channels, dim),
        "token_embedding.weight": (text.vocabulary, text.channels),
        "visual.class_embedding": (image.channels,),
        "visual.conv1.weight": (image.channels, 3, image.patch, image.patch),
        "visual.positional_embedding": (1 + grid, image.channels),
        "visual.proj": (image.channels, dim),
    }
    norms = {"ln_final": text, "visual.ln_pre": image, "visual.ln_post": image}
    for prefix, tower in (("", text), ("visual.", image)):
        width = tower.channels
        for layer in range(tower.depth):
            block = f"{prefix}transformer.resblocks.{layer}"
            norms |= {f"{block}.ln_1": tower, f"{block}.ln_2": tower}
            shapes |= {
                f"{block}.attn.in_proj_weight": (3 * width, width),
                f"{block}.attn.in_proj_bias": (3 * width,),
                f"{block}.attn.out_proj.weight": (width, width),
                f"{block}.attn.out_proj.bias": (width,),
                f"{block}.mlp.c_fc.weight": (4 * width, width),
                f"{block}.mlp.c_fc.bias": (4 * width,),
                f"{block}.mlp.c_proj.weight": (width, 4 * width),
                f"{block}.mlp.c_proj.bias": (width,),
            }
    for norm, tower in norms.items():
        shapes |= {f"{norm}.weight": (tower.channels,), f"{norm}.bias": (tower.channels,)}
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.2 * torch.randn(shape, generator=generator)
        for name, shape in sorted(shapes.items())
    }


def batch(config, n=5):
    rng = np.random.default_rng(0)
    size = (n, 3, config.image.height, config.image.width)
    pixels = torch.from_numpy(rng.integers(0, 256, size, np.uint8))
    ids = torch.from_numpy(
        rng.integers(1, config.text.vocabulary - 1, (n, config.text.context_length), np.int32)
    )
    eot = torch.from_numpy(rng.integers(3, config.text.context_length, n, np.int32))
    ids[torch.arange(n), eot.long()] = config.text.vocabulary - 1
    return pixels, ids, eot


def loaded(path, config=CONFIG):
    torch.manual_seed(99)
    method = config.build().eval()
    load_clip_weights(method, path)
    return method


def assert_holds(method, state):
    """Check that the method has exactly these OpenAI tensors."""
    own = method.state_dict()
    assert len(own) == len(state)
    for name, tensor in state.items():
        tower = "image_tower." if name.startswith("visual.") else "text_tower."
        ours = name if name == "logit_scale" else tower + name.removeprefix("visual.")
        assert own[ours].dtype == torch.float32
        assert torch.equal(own[ours], tensor.float()), name


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        ClipConfig(
            image=VitConfig(
                height=48, width=48, patch=16, channels=48, depth=3, heads=3, activation="gelu"
            ),
            text=TextConfig(
                vocabulary=90, context_length=20, channels=32, depth=1, heads=4, activation="gelu"
            ),
            embed_dim=8,
        ),
        ClipConfig(
            image=VitConfig(height=14, width=14, patch=14, channels=16, depth=1, heads=1),
            text=TextConfig(vocabulary=50, context_length=5, channels=16, depth=4, heads=2),
            embed_dim=40,
        ),
    ],
    ids=["quick_gelu", "gelu", "one patch"],
)
@torch.no_grad()
def test_embeddings_and_logits_equal_those_of_transformers(config, tmp_path):
    theirs = hugging_face(config)
    theirs.save_pretrained(tmp_path)
    ours = loaded(tmp_path, config)
    pixels, ids, eot = batch(config)
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in (CLIP_MEAN, CLIP_STD))
    expected = theirs(input_ids=ids.long(), pixel_values=(pixels / 255 - mean) / std)
    images, texts = ours.encode_images(pixels), ours.encode_texts(ids, eot)
    torch.testing.assert_close(images, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(texts, expected.text_embeds, atol=1e-5, rtol=0)
    logits = ours.logit_scale.exp() * images @ texts.T
    torch.testing.assert_close(logits, expected.logits_per_image, atol=1e-4, rtol=1e-5)


def test_position_ids_of_older_hugging_face_files_are_ignored(tmp_path):
    theirs = hugging_face()
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    for side, length in (("text", 12), ("vision", 17)):
        state[f"{side}_model.embeddings.position_ids"] = torch.arange(length)[None]
    save_file(state, file)
    assert torch.equal(loaded(tmp_path).logit_scale, theirs.logit_scale)


@pytest.mark.parametrize("key", ["k_proj", "v_proj"])
def test_a_hugging_face_file_without_one_of_q_k_v_is_refused(key, tmp_path):
    hugging_face().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    del state[f"text_model.encoder.layers.1.self_attn.{key}.weight"]
    save_file(state, file)
    with pytest.raises(WeightsError, match=rf"layers\.1\.self_attn\.{key}\.weight"):
        loaded(tmp_path)


def test_pytorch_model_bin_in_a_folder_is_read(tmp_path):
    theirs = hugging_face()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    weight = theirs.visual_projection.weight
    assert torch.equal(loaded(tmp_path).image_tower.proj, weight.T)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{n}": t for n, t in state.items()}},
    ],
    ids=["plain", "module.", "state_dict", "model"],
)
def test_the_openai_layout_is_read_from_a_torch_file(wrap, tmp_path):
    state = openai_state()
    torch.save(wrap(state), tmp_path / "clip.pt")
    assert_holds(loaded(tmp_path / "clip.pt"), state)


def test_the_openai_layout_is_read_from_safetensors(tmp_path):
    state = openai_state()
    save_file(state, tmp_path / "clip.safetensors")
    assert_holds(loaded(tmp_path / "clip.safetensors"), state)


def test_half_precision_is_converted_to_fp32(tmp_path):
    state = {name: tensor.half() for name, tensor in openai_state().items()}
    torch.save(state, tmp_path / "clip.pt")
    assert_holds(loaded(tmp_path / "clip.pt"), state)


class Holder(nn.Module):
    """A module whose state dict has the given names."""

    def __init__(self, state):
        super().__init__()
        children = {}
        for name, tensor in state.items():
            head, dot, rest = name.partition(".")
            if dot:
                children.setdefault(head, {})[rest] = tensor
            else:
                self.register_buffer(head, tensor)
        for head, inner in children.items():
            self.add_module(head, Holder(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_openai_torchscript_archive_is_read(tmp_path):
    state = openai_state()
    sizes = {"input_resolution": 32, "context_length": 12, "vocab_size": 64}
    archive = Holder(state | {name: torch.tensor(size) for name, size in sizes.items()})
    torch.jit.save(torch.jit.script(archive), str(tmp_path / "clip.pt"))
    assert_holds(loaded(tmp_path / "clip.pt"), state)


def test_positions_are_resized_to_another_grid(tmp_path):
    state = openai_state()
    torch.save(state, tmp_path / "clip.pt")
    positions = state["visual.positional_embedding"]
    square = positions[1:].reshape(4, 4, 32).permute(2, 0, 1)[None]
    resized = F.interpolate(square, size=(8, 4), mode="bilinear", align_corners=False)
    expected = torch.cat([positions[:1], resized[0].permute(1, 2, 0).reshape(32, 32)])
    got = loaded(tmp_path / "clip.pt", PERSON).image_tower.positional_embedding
    torch.testing.assert_close(got.data, expected, atol=1e-6, rtol=0)


def test_positions_of_an_equal_grid_are_unchanged():
    positions = torch.randn(17, 8)
    assert resize_positions(positions, (4, 4)) is positions


def test_positions_that_are_not_a_square_are_refused():
    with pytest.raises(WeightsError, match="square grid and a class token, got 18 rows"):
        resize_positions(torch.randn(18, 8), (8, 4))


def changed(change):
    state = openai_state()
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(lambda s: s.update(extra=torch.ones(1))), "1 tensors that .* not know: extra"),
        (
            changed(lambda s: s.update({f"odd{i:02d}": torch.ones(1) for i in range(12)})),
            r"12 tensors .* odd09, \.\.\.",
        ),
        (
            changed(lambda s: s.update({"visual.ln_mid.weight": torch.ones(1)})),
            "1 left over: image_tower.ln_mid.weight",
        ),
        (changed(lambda s: s.pop("visual.proj")), "1 missing: image_tower.proj"),
        (changed(lambda s: s.pop("logit_scale")), "1 missing: logit_scale"),
        (
            changed(lambda s: s.update(text_projection=torch.ones(24, 17))),
            r"of another shape: text_tower.text_projection \(24, 17\) for \(24, 16\)",
        ),
        ({"state_dict": {"a": "text"}}, "expected a dict of tensors"),
        ([torch.ones(1)], "expected a dict of tensors in .*, got list"),
        ({}, "missing"),
    ],
    ids=["unknown", "many", "left over", "missing", "no scale", "shape", "text", "list", "empty"],
)
def test_a_state_dict_that_does_not_fit_is_refused(state, message, tmp_path):
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match=message):
        loaded(tmp_path / "clip.pt")


def test_refused_weights_do_not_change_the_model(tmp_path):
    torch.save(changed(lambda s: s.pop("visual.proj")), tmp_path / "clip.pt")
    method = CONFIG.build()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    with pytest.raises(WeightsError):
        load_clip_weights(method, tmp_path / "clip.pt")
    assert all(torch.equal(before[name], t) for name, t in method.state_dict().items())


def test_clip_weights_do_not_fit_a_timm_tower(tmp_path):
    torch.save(openai_state(), tmp_path / "clip.pt")
    config = ClipConfig(
        image=TimmConfig(model="resnet10t", height=32, width=32), text=CONFIG.text, embed_dim=16
    )
    with pytest.raises(WeightsError, match="do not fit the model"):
        load_clip_weights(config.build(), tmp_path / "clip.pt")


def test_a_missing_file_or_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match="there is no weight file at"):
        loaded(tmp_path / "absent.pt")
    with pytest.raises(WeightsError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        loaded(tmp_path)


@pytest.mark.parametrize("name", ["clip.pt", "clip.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(name, share, tmp_path):
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(openai_state(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=r"clip\."):
        loaded(path)


@pytest.mark.parametrize("junk", [b"not weights at all\n", bytes(range(256)), b"PK\x03\x04" * 9])
def test_another_file_is_refused(junk, tmp_path):
    path = tmp_path / "clip.pt"
    path.write_bytes(junk)
    with pytest.raises(WeightsError, match=r"clip\.pt"):
        loaded(path)


class Malicious:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return open, (str(self.sentinel), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_not_executed(zipped, tmp_path):
    sentinel, path = tmp_path / "ran", tmp_path / "clip.pt"
    state = openai_state() | {"logit_scale": Malicious(sentinel)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="does not run what is in a weight"):
        loaded(path)
    assert not sentinel.exists()
    torch.load(path, weights_only=False)
    assert sentinel.exists(), "the file is not malicious, and the test proves nothing"


def test_vit_b16_has_the_published_number_of_parameters():
    """Radford et al. 2021: 149.62 M parameters at 224x224, counted without allocating memory."""
    with torch.device("meta"):
        method = ClipConfig(image=VitConfig(height=224, width=224), text=TextConfig()).build()
    assert sum(parameter.numel() for parameter in method.parameters()) == 149_620_737
