"""Checkpoints of RaSa (Bai et al., IJCAI 2023), and of ALBEF (Li et al. 2021), its base."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from finegrain.errors import WeightsError
from finegrain.models.albef_image import AlbefImageTower
from finegrain.zoo import hf_bert
from finegrain.zoo.renaming import rename

PREFIXES = ("visual_encoder.", "text_encoder.")
"""Name prefixes of checkpoints of RaSa, ALBEF, and other models based on ALBEF or BLIP."""

POSITIONS = ("image_tower.vit.pos_embed", "image_momentum.module.vit.pos_embed")

_CROSS = {
    "crossattention.self.query.{}": "cross.query.{}",
    "crossattention.self.key.{}": "cross.key.{}",
    "crossattention.self.value.{}": "cross.value.{}",
    "crossattention.output.dense.{}": "cross.out.{}",
    "crossattention.output.LayerNorm.{}": "cross_norm.{}",
}
_BERT = {
    # These come first: the first match wins, and other patterns would match them too.
    **{f"encoder.layer.{{}}.{theirs}": f"layers.{{}}.{ours}" for theirs, ours in _CROSS.items()},
    **{name: ours for name, ours in hf_bert.THEIRS_TO_OURS.items() if "pooler" not in name},
}
_WORD_HEAD = {
    "bias": "bias",
    "transform.dense.{}": "dense.{}",
    "transform.LayerNorm.{}": "norm.{}",
}


def _towers(suffix: str, image_tower: str, text_tower: str) -> dict[str, str]:
    return {
        f"visual_encoder{suffix}.{{}}": f"{image_tower}.vit.{{}}",
        f"vision_proj{suffix}.{{}}": f"{image_tower}.proj.{{}}",
        f"text_proj{suffix}.{{}}": f"{text_tower}.proj.{{}}",
        **{
            f"text_encoder{suffix}.bert.{theirs}": f"{text_tower}.bert.{ours}"
            for theirs, ours in _BERT.items()
        },
        **{
            f"text_encoder{suffix}.cls.predictions.{theirs}": f"{text_tower}.word_head.{ours}"
            for theirs, ours in _WORD_HEAD.items()
        },
    }


THEIRS_TO_OURS = {
    **_towers("", "image_tower", "text_tower"),
    **_towers("_m", "image_momentum.module", "text_momentum.module"),
    "temp": "temperature",
    "itm_head.{}": "itm_head.{}",
    "prd_head.{}": "prd_head.{}",
    "mrtd_head.{}": "mrtd_head.{}",
}
IGNORE = tuple(
    f"text_encoder{suffix}.{name}"
    for suffix in ("", "_m")
    for name in ("bert.embeddings.position_ids", "cls.predictions.decoder.{}")
)
"""Position indices, and duplicates of the word embeddings and of the head's bias."""

_QUEUES = ("image_queue", "text_queue")
_QUEUE_IDS, _POINTER = "idx_queue", "queue_ptr"
_EMPTY = -100
_COUNTER = "steps_done"


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of RaSa or ALBEF to finegrain's names.

    Neither stores a step counter, so a continued training restarts the ramp of its soft targets.
    The queues of ALBEF have no identities.

    Raises:
        WeightsError: A name is unknown, or a queue has no pointer.
    """
    rest = dict(state)
    queues = {name: rest.pop(name) for name in _QUEUES if name in rest}
    ids, pointer = rest.pop(_QUEUE_IDS, None), rest.pop(_POINTER, None)
    converted = rename(rest, THEIRS_TO_OURS, IGNORE)
    if queues and pointer is None:
        raise WeightsError(f"the checkpoint has queues and no {_POINTER}; is it of RaSa or ALBEF?")
    for name, features in queues.items():
        assert pointer is not None
        known = torch.full((features.shape[1],), _EMPTY) if ids is None else ids.flatten().clone()
        converted[f"{name}.features"] = features.T
        converted[f"{name}.ids"] = known
        converted[f"{name}.pointer"] = pointer.reshape(()).clone()
    converted[_COUNTER] = torch.zeros((), dtype=torch.long)
    return converted


def queues_to_go_on_with(names: Collection[str]) -> frozenset[str]:
    """Queues of a file with which a new training continues: those of ALBEF, as in RaSa's code.

    The queues of RaSa hold identities of one dataset, so a new training starts with empty ones.
    """
    return frozenset() if _QUEUE_IDS in names else frozenset(_QUEUES).intersection(names)


def resize_queue(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], queue: str
) -> dict[str, Tensor]:
    """Resize a converted queue to the size of the model's queue; the newest rows are kept.

    Args:
        state: Tensors from :func:`convert`.
        own: Tensors of the model. If its queue is larger, its own rows fill the rest.
        queue: ``image_queue`` or ``text_queue``.

    Returns:
        The changed tensors; empty if the sizes are equal.
    """
    names = {part: f"{queue}.{part}" for part in ("features", "ids", "pointer")}
    size, pointer = len(own[names["ids"]]), int(state[names["pointer"]])
    if size == len(state[names["ids"]]):
        return {}
    resized = {names["pointer"]: torch.tensor(min(size, len(state[names["ids"]])) % size)}
    for part in ("features", "ids"):
        newest = state[names[part]].roll(-pointer, dims=0)[-size:]
        resized[names[part]] = torch.cat([newest, own[names[part]][len(newest) :]])
    return resized


def export_rasa(model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of a model to RaSa's names, which its released code can load.

    Raises:
        WeightsError: The model does not have RaSa's towers, or RaSa has no such part.
    """
    tower = model.get_submodule("image_tower")
    if not isinstance(tower, AlbefImageTower):
        raise WeightsError(
            "RaSa's layout holds the towers of ALBEF (AlbefImageConfig), and the image tower is a "
            f"{type(tower).__name__}"
        )
    own = model.state_dict()
    queues = {name: tensor for name, tensor in own.items() if name.split(".")[0] in _QUEUES}
    rest = {name: t for name, t in own.items() if name not in queues and name != _COUNTER}
    return rename(rest, {ours: theirs for theirs, ours in THEIRS_TO_OURS.items()}) | {
        _QUEUES[0]: queues["image_queue.features"].T,
        _QUEUES[1]: queues["text_queue.features"].T,
        _QUEUE_IDS: queues["image_queue.ids"][None],
        _POINTER: queues["image_queue.pointer"][None],
    }
