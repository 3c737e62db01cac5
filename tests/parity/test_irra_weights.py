"""IRRA's published layout, listed name by name, is loaded and written without changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.methods import IrraConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.zoo.loading import export_irra, load_clip_weights

SMALL = IrraConfig(
    image=VitConfig(height=48, width=16, patch=8, channels=32, depth=2, heads=2),
    text=TextConfig(vocabulary=64, context_length=12, channels=24, depth=2, heads=2),
    embed_dim=16,
    identities=7,
    fusion_depth=2,
)
ALL = ("sdm", "id", "mlm")


def blocks(prefix, width, depth):
    shapes = {}
    for layer in range(depth):
        block = f"{prefix}.resblocks.{layer}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
            f"{block}.attn.out_proj.weight": (width, width),
            f"{block}.attn.out_proj.bias": (width,),
            f"{block}.ln_1.weight": (width,),
            f"{block}.ln_1.bias": (width,),
            f"{block}.mlp.c_fc.weight": (4 * width, width),
            f"{block}.mlp.c_fc.bias": (4 * width,),
            f"{block}.mlp.c_proj.weight": (width, 4 * width),
            f"{block}.mlp.c_proj.bias": (width,),
            f"{block}.ln_2.weight": (width,),
            f"{block}.ln_2.bias": (width,),
        }
    return shapes


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def tower_shapes(config):
    image, text, dim = config.image, config.text, config.embed_dim
    patches = (image.height // image.patch) * (image.width // image.patch)
    return {
        "base_model.positional_embedding": (text.context_length, text.channels),
        "base_model.text_projection": (text.channels, dim),
        "base_model.visual.class_embedding": (image.channels,),
        "base_model.visual.positional_embedding": (1 + patches, image.channels),
        "base_model.visual.proj": (image.channels, dim),
        "base_model.visual.conv1.weight": (image.channels, 3, image.patch, image.patch),
        **norm("base_model.visual.ln_pre", image.channels),
        **blocks("base_model.visual.transformer", image.channels, image.depth),
        **norm("base_model.visual.ln_post", image.channels),
        **blocks("base_model.transformer", text.channels, text.depth),
        "base_model.token_embedding.weight": (text.vocabulary, text.channels),
        **norm("base_model.ln_final", text.channels),
    }


def head_shapes(config):
    dim, words = config.embed_dim, config.text.vocabulary
    return {
        "classifier.weight": (config.identities, dim),
        "classifier.bias": (config.identities,),
        "cross_attn.in_proj_weight": (3 * dim, dim),
        "cross_attn.in_proj_bias": (3 * dim,),
        "cross_attn.out_proj.weight": (dim, dim),
        "cross_attn.out_proj.bias": (dim,),
        **blocks("cross_modal_transformer", dim, config.fusion_depth),
        **norm("ln_pre_t", dim),
        **norm("ln_pre_i", dim),
        **norm("ln_post", dim),
        "mlm_head.dense.weight": (dim, dim),
        "mlm_head.dense.bias": (dim,),
        **norm("mlm_head.ln", dim),
        "mlm_head.fc.weight": (words, dim),
        "mlm_head.fc.bias": (words,),
    }


def random_state(shapes, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor.float()), name


def test_names_and_shapes_equal_the_published_list():
    """Without allocating memory: the names and shapes of the CUHK-PEDES checkpoint, 194.535 M
    numbers."""
    config = IrraConfig(image=VitConfig(), text=TextConfig())
    with torch.device("meta"):
        state = export_irra(config.build(ALL))
    shapes = tower_shapes(config) | head_shapes(config)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes
    assert shapes["base_model.visual.positional_embedding"] == (193, 768)
    assert sum(tensor.numel() for tensor in state.values()) == pytest.approx(194.535e6, abs=500)


@settings(max_examples=12, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    patch=st.sampled_from([1, 3, 8]),
    depths=st.tuples(*[st.integers(1, 2)] * 3),
    identities=st.integers(1, 9),
    losses=st.lists(st.sampled_from(ALL), min_size=1, unique=True),
    prefix=st.sampled_from(["", "module."]),
    half=st.booleans(),
)
def test_loaded_weights_are_written_back(
    tmp_path_factory, grid, patch, depths, identities, losses, prefix, half
):
    config = replace(
        SMALL,
        image=replace(
            SMALL.image, height=grid[0] * patch, width=grid[1] * patch, patch=patch, depth=depths[0]
        ),
        text=replace(SMALL.text, depth=depths[1]),
        fusion_depth=depths[2],
        identities=identities,
    )
    heads = head_shapes(config)
    wanted = {
        name: shape
        for name, shape in heads.items()
        if ("id" if name.startswith("classifier") else "mlm") in losses
    }
    state = random_state(tower_shapes(config) | wanted)
    if half:
        state = {name: tensor.half() for name, tensor in state.items()}
    path = tmp_path_factory.mktemp("released") / "best.pth"
    torch.save({"model": {f"{prefix}{n}": t for n, t in state.items()}, "epoch": 41}, path)
    method = config.build(losses)
    load_clip_weights(method, path)
    assert all(tensor.dtype == torch.float32 for tensor in method.state_dict().values())
    assert_same(export_irra(method), state)


def test_a_checkpoint_of_the_released_trainer_is_read(tmp_path):
    """With the optimiser and the schedule, as the released code saves them."""
    state = random_state(tower_shapes(SMALL) | head_shapes(SMALL))
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=1e-5, eps=1e-3)
    parameter.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, (20, 50))
    saved = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "num_epoch": 60,
        "iteration": 0,
        "epoch": 57,
    }
    torch.save(saved, tmp_path / "best.pth")
    method = SMALL.build(ALL)
    load_clip_weights(method, tmp_path / "best.pth")
    assert_same(export_irra(method), state)


@pytest.mark.parametrize("with_heads", [True, False], ids=["IRRA", "HAM and NAM"])
def test_towers_are_enough_for_search(with_heads, tmp_path):
    towers = random_state(tower_shapes(SMALL))
    heads = random_state(head_shapes(SMALL)) if with_heads else {}
    torch.save(towers | heads, tmp_path / "best.pth")
    method = SMALL.build(["sdm"])
    load_clip_weights(method, tmp_path / "best.pth", parts=method.pretrained_parts)
    assert_same(export_irra(method), towers)


def test_the_logit_scale_of_some_forks_is_ignored(tmp_path):
    state = random_state(tower_shapes(SMALL))
    kept = state | {"base_model.logit_scale": torch.tensor(4.6)}
    torch.save(kept, tmp_path / "best.pth")
    method = SMALL.build(["sdm"])
    load_clip_weights(method, tmp_path / "best.pth")
    assert_same(export_irra(method), state)


def test_positions_of_the_same_grid_are_unchanged_if_their_number_is_a_square(tmp_path):
    config = replace(SMALL, image=replace(SMALL.image, height=64, width=16))  # 8x2 patches
    state = random_state(tower_shapes(config))
    torch.save(state, tmp_path / "best.pth")
    method = config.build(["sdm"])
    load_clip_weights(method, tmp_path / "best.pth")
    assert_same(export_irra(method), state)
