"""No tensor of a released checkpoint is skipped silently, and no parameter is left unset."""

from __future__ import annotations

import os

import pytest
import torch

from finegrain.errors import WeightsError
from finegrain.methods import ClipConfig, IrraConfig
from finegrain.models import ConvConfig, TextConfig, VitConfig
from finegrain.zoo.loading import export_irra, load_clip_weights
from finegrain.zoo.positions import resize_positions
from finegrain.zoo.renaming import parts_of, rename

TOWERS = {
    "image": VitConfig(height=32, width=16, patch=8, channels=16, depth=1, heads=2),
    "text": TextConfig(vocabulary=20, context_length=6, channels=16, depth=1, heads=2),
    "embed_dim": 16,
}
CONFIG = IrraConfig(**TOWERS, identities=5, fusion_depth=1)
ALL = ("sdm", "id", "mlm")


def released(tmp_path, change=None, *, losses=ALL, identities=5):
    """A checkpoint in IRRA's layout, and its tensors."""
    torch.manual_seed(1)
    config = IrraConfig(**TOWERS, identities=identities, fusion_depth=1)
    state = export_irra(config.build(losses))
    if change is not None:
        change(state)
    torch.save({"model": state}, tmp_path / "best.pth")
    return tmp_path / "best.pth", state


def built(losses=ALL):
    torch.manual_seed(2)
    return CONFIG.build(losses)


def test_heads_that_the_model_lacks_are_an_error_by_default(tmp_path):
    path, state = released(tmp_path)
    method = built(["sdm"])
    with pytest.raises(WeightsError, match=r"left over: classifier.weight.*parts="):
        load_clip_weights(method, path)
    load_clip_weights(method, path, parts=method.pretrained_parts)
    assert torch.equal(method.image_tower.proj, state["base_model.visual.proj"])


def test_heads_that_the_file_lacks_are_an_error_by_default(tmp_path):
    path, _ = released(tmp_path, losses=["sdm"])
    method = built()
    initial = method.classifier.weight.clone()
    with pytest.raises(WeightsError, match=r"missing: classifier.weight.*parts="):
        load_clip_weights(method, path)
    load_clip_weights(method, path, parts=method.pretrained_parts)
    assert torch.equal(method.classifier.weight, initial)


def test_a_classifier_of_another_dataset_is_refused(tmp_path):
    path, state = released(tmp_path, identities=3)
    method = built()
    initial = method.classifier.weight.clone()
    with pytest.raises(WeightsError, match=r"classifier.weight \(3, 16\) for \(5, 16\)"):
        load_clip_weights(method, path)
    load_clip_weights(method, path, parts=set(parts_of(method.state_dict())) - {"classifier"})
    assert torch.equal(method.classifier.weight, initial)
    assert torch.equal(method.fusion.ln_text.weight, state["ln_pre_t.weight"])
    assert torch.equal(method.mlm_head.fc.weight, state["mlm_head.fc.weight"])


def test_fresh_heads_do_not_excuse_an_incomplete_tower(tmp_path):
    path, _ = released(tmp_path, lambda s: s.pop("base_model.visual.proj"))
    method = built()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    with pytest.raises(WeightsError, match=r"1 missing: image_tower\.proj"):
        load_clip_weights(method, path, parts=method.pretrained_parts)
    assert all(torch.equal(before[name], t) for name, t in method.state_dict().items())


def test_unknown_names_are_listed_up_to_ten(tmp_path):
    extra = {f"base_model.visual_adapter.{i:02d}": torch.ones(1) for i in range(12)}
    path, _ = released(tmp_path, lambda s: s.update(extra))
    with pytest.raises(WeightsError, match=r"12 tensors .*adapter.09, \.\.\.") as raised:
        load_clip_weights(built(), path)
    assert "adapter.10" not in str(raised.value)


def test_a_tensor_under_two_names_is_refused():
    twice = {"visual.proj": torch.ones(1), "clip.visual.proj": torch.ones(1)}
    table = {"visual.proj": "image_tower.proj", "clip.visual.proj": "image_tower.proj"}
    with pytest.raises(WeightsError, match=r"image_tower\.proj twice.* as clip\.visual\.proj"):
        rename(twice, table)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("visual_encoder.blocks.0.norm1.weight", "RaSa"),
        ("text_encoder.bert.embeddings.LayerNorm.weight", "RaSa"),
    ],
)
def test_a_checkpoint_of_another_method_is_named(tmp_path, name, what):
    torch.save({name: torch.ones(1)}, path := tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=f"this is a checkpoint of {what}"):
        load_clip_weights(built(), path, parts=["image_tower"])


def pretrained_clip(path, **towers):
    """Write a CLIP under OpenAI's names."""
    clip = ClipConfig(**TOWERS | towers).build()
    state = {name.removeprefix("base_model."): tensor for name, tensor in export_irra(clip).items()}
    torch.save(state, path)
    return clip


def test_pretrained_clip_is_loaded_with_fresh_heads(tmp_path):
    clip = pretrained_clip(tmp_path / "clip.pt")
    method = built()
    initial = method.classifier.weight.clone()
    load_clip_weights(method, tmp_path / "clip.pt", parts=method.pretrained_parts)
    assert torch.equal(method.classifier.weight, initial)
    for name, tensor in clip.state_dict().items():
        if name != "logit_scale":  # IRRA has none
            assert torch.equal(method.state_dict()[name], tensor)


def test_positions_of_a_pretrained_clip_are_resized_to_another_shape(tmp_path):
    square = VitConfig(height=16, width=16, patch=4, channels=16, depth=1, heads=2)
    clip = pretrained_clip(tmp_path / "clip.pt", image=square)
    tall = VitConfig(height=32, width=8, patch=4, channels=16, depth=1, heads=2)
    method = IrraConfig(**TOWERS | {"image": tall}).build(["sdm"])
    load_clip_weights(method, tmp_path / "clip.pt")
    expected = resize_positions(clip.image_tower.positional_embedding.detach(), (8, 2))
    assert torch.equal(method.image_tower.positional_embedding, expected)
    assert not torch.equal(expected, clip.image_tower.positional_embedding)


def test_a_clip_keeps_its_scale_beside_weights_without_one(tmp_path):
    path, state = released(tmp_path, losses=["sdm"])
    clip = ClipConfig(**TOWERS).build()
    clip.logit_scale.data.fill_(1.25)
    load_clip_weights(clip, path)
    assert clip.logit_scale.item() == 1.25
    assert torch.equal(clip.image_tower.proj, state["base_model.visual.proj"])


def test_only_a_clip_transformer_is_written():
    config = IrraConfig(
        image=ConvConfig(height=64, width=32, channels=(8, 8, 8, 16)),
        text=TOWERS["text"],
        embed_dim=16,
    )
    with pytest.raises(WeightsError, match=r"VitConfig.* is a ConvTower"):
        export_irra(config.build(["sdm"]))


def test_positions_of_another_grid_of_equal_size_are_interpolated():
    """CLIP's 14x14 grid has as many cells as 28x7, but other cells."""
    positions = torch.randn(1 + 16, 4)
    resized = resize_positions(positions, (8, 2))
    assert resized.shape == positions.shape
    assert torch.equal(resized[0], positions[0])
    assert not torch.allclose(resized[1:], positions[1:])
    assert resize_positions(positions, (8, 2), finetuned=True) is positions


def test_half_precision_positions_are_interpolated_in_fp32():
    positions = torch.randn(17, 4).half()
    resized = resize_positions(positions, (8, 4))
    assert resized.dtype == torch.float32
    assert torch.equal(resized, resize_positions(positions.float(), (8, 4)))


@pytest.mark.parametrize("finetuned", [True, False])
def test_positions_of_another_person_shape_are_refused(finetuned):
    with pytest.raises(WeightsError, match=r"got 193 rows.*16x8 needs 129.*height and width"):
        resize_positions(torch.randn(193, 4), (16, 8), finetuned=finetuned)


class Command:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


@pytest.mark.parametrize("where", ["model", "optimizer"])
def test_a_command_in_a_checkpoint_is_refused_and_not_executed(tmp_path, where):
    sentinel, path = tmp_path / "ran", tmp_path / "best.pth"
    saved = {"model": export_irra(built()), "optimizer": {}}
    saved[where]["x"] = Command(sentinel)
    torch.save(saved, path)
    with pytest.raises(WeightsError, match="does not run what is in a weight"):
        load_clip_weights(built(), path)
    assert not sentinel.exists()
    torch.load(path, weights_only=False)
    assert sentinel.exists(), "the file is not malicious, and the test proves nothing"
