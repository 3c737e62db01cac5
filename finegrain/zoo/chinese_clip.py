"""Chinese-CLIP (Yang et al. 2022, https://arxiv.org/abs/2211.01335) in both of its layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from finegrain.errors import WeightsError
from finegrain.models import BertTextConfig, VitConfig
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD
from finegrain.models.transformer import Activation
from finegrain.zoo import hf_clip
from finegrain.zoo.bert_tower import bert_sizes, convert_bert
from finegrain.zoo.clip_config import HEAD_WIDTH, HUGGING_FACE
from finegrain.zoo.clip_sizes import image_sizes
from finegrain.zoo.description import Description
from finegrain.zoo.hf_preprocessor import HfPreprocessor, read_hf_preprocessor
from finegrain.zoo.json_file import choice, only, part, read_json, whole
from finegrain.zoo.renaming import rename
from finegrain.zoo.tokenizer_files import JSON, WORD_PIECES, find_tokenizer

CONTEXT_LENGTH = 52
RELEASED, HF = "bert.embeddings.", "text_model.encoder.layer."
"""Name prefixes that tell the released layout and that of Hugging Face."""

HUGE_WIDTH, HUGE_HEAD = 1280, 80
"""Width of ViT-H, and the channels of its attention heads; other towers have 64."""

_RELEASED = {
    "visual.{}": "image_tower.{}",
    "text_projection": "text_tower.proj.weight",
    "logit_scale": "logit_scale",
}
_HF = {
    "text_projection.weight": "text_tower.proj.weight",
    "visual_projection.weight": "image_tower.proj",
    "logit_scale": "logit_scale",
    **{
        theirs: ours
        for theirs, ours in hf_clip.THEIRS_TO_OURS.items()
        if theirs.startswith("vision_model.")
    },
}
_ACTIVATIONS: Mapping[str, Activation] = {"quick_gelu": "quick_gelu", "gelu": "gelu"}


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of Chinese-CLIP to finegrain's names.

    Raises:
        WeightsError: A name is unknown, or the image tower is a ResNet.
    """
    if "visual.layer1.0.conv1.weight" in state:
        raise WeightsError(
            "this Chinese-CLIP has a ResNet as its image tower, which finegrain does not support; "
            "expected one with a vision transformer, such as clip_cn_vit-b-16.pt"
        )
    is_hf = not any(name.startswith(RELEASED) for name in state)
    prefix = "text_model." if is_hf else "bert."
    bert = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    rest = {name: t for name, t in state.items() if not name.startswith(prefix)}
    if is_hf:
        rest = hf_clip.merge_qkv(rest)
        if "visual_projection.weight" in rest:
            rest["visual_projection.weight"] = rest["visual_projection.weight"].T
    elif "text_projection" in rest:
        rest["text_projection"] = rest["text_projection"].T
    return rename(rest, _HF if is_hf else _RELEASED, hf_clip.IGNORE) | convert_bert(bert)


def describe(file: Path, state: Mapping[str, Tensor]) -> Description:
    """Describe a model by its tensors, and by the files of Hugging Face if it has their layout.

    Args:
        file: The weight file. Its folder must have the vocabulary.
        state: Its tensors.

    Raises:
        WeightsError: The vocabulary is missing, a file is damaged, or the model is of another
            kind.
    """
    converted = convert(state)
    sizes = image_sizes(converted)
    heads = sizes.channels // (HUGE_HEAD if sizes.channels == HUGE_WIDTH else HEAD_WIDTH)
    activation: Activation = "quick_gelu"
    text = bert_sizes(converted)
    pictures = HfPreprocessor()
    config_file = file.with_name(HUGGING_FACE)
    if config_file.is_file():  # also next to the released file, which it describes as well
        values = read_json(config_file)
        if values.get("model_type") != "chinese_clip":
            raise WeightsError(
                f"{config_file} describes a model of type {values.get('model_type')!r:.60}, and "
                f"{file} is a Chinese-CLIP"
            )
        vision = part(values, "vision_config", config_file)
        words = part(values, "text_config", config_file)
        only(words, {"hidden_act": "gelu", "layer_norm_eps": 1e-12}, f"{config_file} says text")
        only(vision, {"layer_norm_eps": 1e-5}, f"{config_file} says vision")
        heads = whole(vision.get("num_attention_heads", 12), config_file)
        text["heads"] = whole(words.get("num_attention_heads", 12), config_file)
        stated = {"hidden_act": vision.get("hidden_act", "quick_gelu")}
        activation = choice(stated, "hidden_act", _ACTIVATIONS, config_file)
        pictures = read_hf_preprocessor(file.parent)
    if sizes.side is None:
        raise WeightsError(f"the positions of {file} are not those of a square picture")
    if pictures.size not in (None, (sizes.side, sizes.side)):
        raise WeightsError(
            f"{file} has pictures of {sizes.side}x{sizes.side}, and the image processor next to "
            f"it makes {pictures.size}"
        )
    return Description(
        image=VitConfig(
            height=sizes.side,
            width=sizes.side,
            patch=sizes.patch,
            channels=sizes.channels,
            depth=sizes.depth,
            heads=max(1, heads),
            activation=activation,
            mean=pictures.mean or CLIP_MEAN,
            std=pictures.std or CLIP_STD,
        ),
        text=BertTextConfig(
            **text,
            context_length=CONTEXT_LENGTH,
            tokenizer_file=str(find_tokenizer(file.parent, (JSON, WORD_PIECES))),
        ),
        embed_dim=sizes.embed_dim,
        fit=pictures.fit or "stretch",
        interpolation=pictures.interpolation or "bicubic",
    )
