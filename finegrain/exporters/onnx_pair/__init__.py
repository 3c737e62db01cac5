"""Plans from published pairs of ONNX graphs, an image tower and a text tower, without torch.

Three layouts are read::

    visual/model.onnx        textual/model.onnx        Immich's, exported from open_clip
    onnx/vision_model.onnx   onnx/text_model.onnx      Hugging Face's, as Transformers.js reads it
    onnx/model.onnx                                    both towers in one graph

Beside them are the tokenizer and the configuration of the preprocessing. The graphs are wrapped
to the inputs and outputs of a plan: pictures as bytes, an explicit end of the text, any batch, and
normalised embeddings. The result is compared with the published graphs before it is written.
"""

from finegrain.exporters.onnx_pair.compare import PairReport
from finegrain.exporters.onnx_pair.files import is_onnx_pair
from finegrain.exporters.onnx_pair.pair import plan_from_pair

__all__ = ["PairReport", "is_onnx_pair", "plan_from_pair"]
