"""Methods: the towers, heads and losses of a paper."""

from finegrain.methods.base import Batch, Method
from finegrain.methods.clip import BertClipConfig, Clip, ClipConfig
from finegrain.methods.fashionbert import FashionBert, FashionBertConfig
from finegrain.methods.irra import Irra, IrraConfig
from finegrain.methods.itself import Itself, ItselfConfig
from finegrain.methods.mined import Mined, MinedConfig
from finegrain.methods.rasa import Rasa, RasaConfig
from finegrain.methods.rde import Rde, RdeConfig
from finegrain.methods.tbps_clip import TbpsClip, TbpsClipConfig
from finegrain.methods.two_towers import TwoTowers

__all__ = [
    "Batch",
    "BertClipConfig",
    "Clip",
    "ClipConfig",
    "FashionBert",
    "FashionBertConfig",
    "Irra",
    "IrraConfig",
    "Itself",
    "ItselfConfig",
    "Method",
    "MethodConfig",
    "Mined",
    "MinedConfig",
    "Rasa",
    "RasaConfig",
    "Rde",
    "RdeConfig",
    "TbpsClip",
    "TbpsClipConfig",
    "TwoTowers",
]

MethodConfig = (
    ClipConfig
    | BertClipConfig
    | FashionBertConfig
    | IrraConfig
    | ItselfConfig
    | MinedConfig
    | RasaConfig
    | RdeConfig
    | TbpsClipConfig
)
