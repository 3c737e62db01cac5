"""Checkpoints in the layouts of RaSa and of ALBEF."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from finegrain.data.datasets import CuhkPedes
from finegrain.errors import WeightsError
from finegrain.methods import ClipConfig, RasaConfig
from finegrain.methods.rasa import LOSSES
from finegrain.models import TextConfig, VitConfig
from finegrain.models.albef_image import AlbefImageConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.recipe import Recipe
from finegrain.runs.checkpoint import last_checkpoint
from finegrain.runs.conversion import released_to_run, run_to_released
from finegrain.runs.run import load_run
from finegrain.zoo.examination import examine_weights
from finegrain.zoo.loading import export_rasa, load_clip_weights
from finegrain.zoo.rasa import convert

IMAGE = AlbefImageConfig(height=32, width=32, patch=8, channels=16, depth=1, heads=2)
CONFIG = RasaConfig(
    image=IMAGE,
    text=AlbefTextConfig(
        vocabulary_file="vocab.txt",
        vocabulary=120,
        positions=60,
        channels=16,
        depth=1,
        fusion_depth=1,
        heads=2,
    ),
    embed_dim=8,
    queue=6,
)
CLIP = ClipConfig(
    image=VitConfig(height=32, width=16, patch=8, channels=16, depth=1, heads=2),
    text=TextConfig(vocabulary=20, context_length=6, channels=16, depth=1, heads=2),
    embed_dim=16,
)


def built(seed=1, **changes):
    torch.manual_seed(seed)
    method = replace(CONFIG, **changes).build()
    with torch.no_grad():  # momentum copies that differ from their originals
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def released(path, change=None, **changes):
    """A checkpoint under the released names, with the other content of its file."""
    state = export_rasa(built(**changes))
    for suffix in ("", "_m"):
        bert = f"text_encoder{suffix}"
        words = state[f"{bert}.bert.embeddings.word_embeddings.weight"]
        state[f"{bert}.bert.embeddings.position_ids"] = torch.arange(60)[None]
        state[f"{bert}.cls.predictions.decoder.weight"] = words
        state[f"{bert}.cls.predictions.decoder.bias"] = state[f"{bert}.cls.predictions.bias"]
    if change is not None:
        change(state)
    torch.save({"model": state, "epoch": 29, "best": 0.0}, path)
    return state


def as_albef(state):
    """ALBEF has no heads of RaSa and no identities in its queues."""
    for name in [name for name in state if name.startswith(("prd", "mrtd", "idx"))]:
        del state[name]


def test_all_tensors_are_restored(tmp_path):
    state = released(tmp_path / "best.pth")
    method = built(seed=2)
    assert examine_weights(tmp_path / "best.pth").layout == "albef"
    load_clip_weights(method, tmp_path / "best.pth")
    back = export_rasa(method)
    assert back.keys() == {n for n in state if "position_ids" not in n and "decoder" not in n}
    assert all(torch.equal(tensor, state[name]) for name, tensor in back.items())
    assert back["idx_queue"].shape == (1, 6)
    assert back["image_queue"].shape == (8, 6)


def test_every_released_name_of_a_layer_is_known(tmp_path):
    names = {
        n.partition("layer.1.")[2]
        for n in released(tmp_path / "best.pth")
        if n.startswith("text_encoder.bert.encoder.layer.1.")
    }
    halves = [f"{kind}.self.{p}" for kind in ("attention", "crossattention")
              for p in ("query", "key", "value")]  # fmt: skip
    ends = [f"{kind}.output.{p}" for kind in ("attention", "crossattention")
            for p in ("dense", "LayerNorm")]  # fmt: skip
    rest = ["intermediate.dense", "output.dense", "output.LayerNorm"]
    assert names == {f"{p}.{w}" for p in (*halves, *ends, *rest) for w in ("weight", "bias")}


def test_training_can_start_from_albef(tmp_path):
    """As the recipe loads it: heads that ALBEF lacks keep their initial values."""
    state = released(tmp_path / "ALBEF.pth", as_albef)
    method = built(seed=2)
    with pytest.raises(WeightsError, match=r"missing: prd_head.*parts="):
        load_clip_weights(method, tmp_path / "ALBEF.pth")
    initial = method.prd_head.weight.clone()
    load_clip_weights(method, tmp_path / "ALBEF.pth", parts=method.pretrained_parts)
    assert torch.equal(method.prd_head.weight, initial)
    assert torch.equal(method.itm_head.weight, state["itm_head.weight"])
    assert torch.equal(method.image_momentum.module.proj.weight, state["vision_proj_m.weight"])
    assert torch.equal(method.image_queue.features, state["image_queue"].T)
    assert torch.equal(method.text_queue.features, state["text_queue"].T)
    assert (method.image_queue.ids == -100).all()
    assert method.text_queue.pointer == state["queue_ptr"]


@pytest.mark.parametrize("size", [4, 9])
def test_a_queue_of_another_size_keeps_the_newest_rows(size, tmp_path):
    """Row 2 of six is the oldest. A queue of nine keeps three of its own rows, older than those."""
    state = released(
        tmp_path / "ALBEF.pth",
        lambda state: as_albef(state) or state.update(queue_ptr=torch.tensor([2])),
    )
    method = built(seed=2, queue=size)
    own = method.image_queue.features.clone()
    load_clip_weights(method, tmp_path / "ALBEF.pth", parts=method.pretrained_parts)
    newest_last = state["image_queue"].T[[2, 3, 4, 5, 0, 1]]
    expected = newest_last[-4:] if size == 4 else torch.cat([newest_last, own[6:]])
    assert torch.equal(method.image_queue.features, expected)
    assert method.image_queue.pointer == (0 if size == 4 else 6)
    method.image_queue.hold(torch.ones(1, 8), torch.tensor([3]))
    method.image_queue.write()
    assert method.image_queue.ids.tolist().index(3) == (0 if size == 4 else 6)


def test_queues_of_rasa_are_not_loaded(tmp_path):
    """Their identities are numbers of other training data."""
    released(tmp_path / "best.pth")
    method = built(seed=2)
    own = method.image_queue.features.clone()
    load_clip_weights(method, tmp_path / "best.pth", parts=method.pretrained_parts)
    assert torch.equal(method.image_queue.features, own)


def test_training_can_start_from_albef_without_queues(tmp_path):
    def without_queues(state):
        as_albef(state)
        for name in ("image_queue", "text_queue", "queue_ptr"):
            del state[name]

    released(tmp_path / "ALBEF.pth", without_queues)
    method = built(seed=2)
    load_clip_weights(method, tmp_path / "ALBEF.pth", parts=method.pretrained_parts)


def test_queues_without_identities_match_no_person():
    state = {"image_queue": torch.ones(8, 6), "queue_ptr": torch.tensor([3])}
    converted = convert(state)
    assert converted["image_queue.ids"].tolist() == [-100] * 6
    assert int(converted["image_queue.pointer"]) == 3
    with pytest.raises(WeightsError, match="has queues and no queue_ptr"):
        convert({"image_queue": torch.ones(8, 6)})


def test_positions_of_smaller_pictures_are_interpolated(tmp_path):
    """By bicubic interpolation, for the model and for its copy, as ALBEF does."""
    state = released(tmp_path / "ALBEF.pth")
    larger = replace(IMAGE, height=48, width=40)
    method = built(seed=2, image=larger)
    load_clip_weights(method, tmp_path / "ALBEF.pth")
    for suffix, vit in (("", method.image_tower.vit), ("_m", method.image_momentum.module.vit)):
        positions = state[f"visual_encoder{suffix}.pos_embed"]
        square = positions[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
        expected = F.interpolate(square, size=(6, 5), mode="bicubic", align_corners=False)
        torch.testing.assert_close(vit.pos_embed[:, :1], positions[:, :1])
        torch.testing.assert_close(vit.pos_embed[:, 1:], expected.flatten(2).transpose(1, 2))


def test_unknown_names_are_listed_up_to_ten(tmp_path):
    extra = {f"text_encoder.bert.adapter.{i:02d}": torch.ones(1) for i in range(12)}
    released(tmp_path / "best.pth", lambda state: state.update(extra))
    with pytest.raises(WeightsError, match=r"12 tensors .*adapter.09, \.\.\.") as raised:
        load_clip_weights(built(), tmp_path / "best.pth")
    assert "adapter.10" not in str(raised.value)


def test_missing_tensors_are_an_error(tmp_path):
    released(tmp_path / "best.pth", lambda state: state.pop("visual_encoder.norm.bias"))
    method = built()
    with pytest.raises(WeightsError, match=r"1 missing: image_tower\.vit\.norm\.bias"):
        load_clip_weights(method, tmp_path / "best.pth", parts=method.pretrained_parts)


def test_queues_of_another_size_are_refused(tmp_path):
    released(tmp_path / "best.pth")
    larger = built(queue=7)
    with pytest.raises(WeightsError, match=r"image_queue.features \(6, 8\) for \(7, 8\)"):
        load_clip_weights(larger, tmp_path / "best.pth")
    load_clip_weights(larger, tmp_path / "best.pth", parts=larger.pretrained_parts)


def test_only_albef_towers_are_written():
    with pytest.raises(WeightsError, match="the image tower is a VisionTransformer"):
        export_rasa(CLIP.build())


def test_a_clip_cannot_load_it(tmp_path):
    released(tmp_path / "best.pth")
    with pytest.raises(WeightsError, match=r"checkpoint of RaSa.*with a RasaConfig"):
        load_clip_weights(CLIP.build(), tmp_path / "best.pth")


@pytest.mark.parametrize("heads", [True, False])
def test_a_released_checkpoint_becomes_a_run_and_is_written_back(heads, tmp_path):
    state = released(tmp_path / "best.pth")
    small = Recipe(
        name="small",
        about="a small RaSa",
        data=CuhkPedes(root="elsewhere"),
        method=CONFIG,
        losses=dict.fromkeys(LOSSES, 1.0),
        weak_positives=0.1,
    )
    out = tmp_path / "run"
    converted = released_to_run(tmp_path / "best.pth", out, recipe=small, heads=heads)
    expected = set(LOSSES) if heads else {"cl", "pitm"}
    assert set(converted.recipe.losses) == expected
    assert last_checkpoint(out) is not None
    _, method, _ = load_run(out)
    assert torch.equal(method.itm_head.weight, state["itm_head.weight"])
    run_to_released(out, tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    towers = [name for name in back if name.startswith(("visual", "text_e", "itm", "vision_proj"))]
    assert all(torch.equal(back[name], state[name]) for name in towers)
    assert heads is ("prd_head.weight" in back)


def test_without_a_recipe_it_becomes_rasa_with_its_sizes(tmp_path):
    released(tmp_path / "best.pth")
    options = ["method.image.depth=1", "method.text.depth=1", "method.text.fusion_depth=1"]
    with pytest.raises(WeightsError, match=r"image_tower\.vit\.cls_token \(1, 1, 16\) for"):
        released_to_run(tmp_path / "best.pth", tmp_path / "run", overrides=options)
