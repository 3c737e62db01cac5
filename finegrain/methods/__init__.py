"""Methods: towers, heads and losses put together as a paper puts them together."""

from finegrain.methods.base import Batch, Method
from finegrain.methods.clip import Clip, ClipConfig

__all__ = ["Batch", "Clip", "ClipConfig", "Method"]
