"""Chinese-CLIP in Hugging Face's and in the released layout, from files, compared with
transformers."""

from __future__ import annotations

import pytest
import torch
from fixtures.published_models import Theirs, assert_equal, shake
from fixtures.published_tokenizers import write_word_pieces
from transformers import (
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
)

SIDE, LENGTH = 32, 52
FILE = "clip_cn_vit-b-16.pt"


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2}
    made = ChineseCLIPModel(
        ChineseCLIPConfig(
            text_config={
                **sizes,
                "hidden_size": 128,
                "vocab_size": 300,
                "intermediate_size": 200,
                "max_position_embeddings": 60,
            },
            vision_config={
                **sizes,
                "hidden_size": 128,
                "image_size": SIDE,
                "patch_size": 8,
                "intermediate_size": 512,
            },
            projection_dim=32,
        )
    ).eval()
    shake(made)
    return made


def theirs_of(folder, model, processor):
    tokenizer = BertTokenizer.from_pretrained(str(folder))

    def ids(texts):
        return tokenizer(
            texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        ).input_ids

    def encode(ids):
        mask = (ids != 0).long()
        return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output

    return Theirs(
        pixels=lambda photo: processor(photo, return_tensors="pt").pixel_values[0],
        ids=ids,
        images=lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output,
        texts=encode,
    )


def released_names(model):
    """The tensors under the names of the released code (see the paper's repository)."""
    state = {}
    theirs = model.state_dict()
    for name, tensor in theirs.items():
        if name.startswith("text_model."):
            state[name.replace("text_model.", "bert.")] = tensor
    state["bert.pooler.dense.weight"] = torch.ones(2, 2)
    state["text_projection"] = theirs["text_projection.weight"].T
    state["logit_scale"] = theirs["logit_scale"]
    state["visual.proj"] = theirs["visual_projection.weight"].T
    vision = {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
    }
    for old, new in vision.items():
        state[f"visual.{new}"] = theirs[f"vision_model.{old}"]
    for kind in ("weight", "bias"):
        state[f"visual.ln_pre.{kind}"] = theirs[f"vision_model.pre_layrnorm.{kind}"]
        state[f"visual.ln_post.{kind}"] = theirs[f"vision_model.post_layernorm.{kind}"]
        for layer in range(2):
            old = f"vision_model.encoder.layers.{layer}"
            new = f"visual.transformer.resblocks.{layer}"
            parts = [theirs[f"{old}.self_attn.{which}_proj.{kind}"] for which in "qkv"]
            state[f"{new}.attn.in_proj_{kind}"] = torch.cat(parts)
            for before, after in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                state[f"{new}.{after}.{kind}"] = theirs[f"{old}.{before}.{kind}"]
    return state


@pytest.mark.slow
@pytest.mark.parametrize("crops", [True, False])
def test_chinese_clip_is_read_from_its_folder(tmp_path, model, crops):
    write_word_pieces(tmp_path)
    model.save_pretrained(tmp_path)
    side = {"height": SIDE, "width": SIDE}
    size = {"shortest_edge": SIDE} if crops else side
    processor = ChineseCLIPImageProcessorPil(size=size, do_center_crop=crops, crop_size=side)
    processor.save_pretrained(tmp_path)
    published, manifest = assert_equal(tmp_path, theirs_of(tmp_path, model, processor), tmp_path)
    assert published.layout == "chinese_clip"
    assert (manifest.fit, manifest.context_length) == ("crop" if crops else "stretch", 52)


@pytest.mark.slow
def test_the_released_file_is_read_with_its_vocabulary(tmp_path, model):
    write_word_pieces(tmp_path)
    state = {f"module.{name}": tensor for name, tensor in released_names(model).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / FILE)
    side = {"height": SIDE, "width": SIDE}
    processor = ChineseCLIPImageProcessorPil(size=side, do_center_crop=False)
    published, manifest = assert_equal(
        tmp_path, theirs_of(tmp_path, model, processor), tmp_path, file=FILE
    )
    assert (published.layout, manifest.fit) == ("chinese_clip", "stretch")
