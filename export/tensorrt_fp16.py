"""NVIDIA GPUs with TensorRT 10.12 to 11: the graph is fp16 where CLIP is fp16.

The plan is portable: the serving machine builds the engine from it. The parity check runs the same
graphs in ONNX Runtime on a CPU; no GPU has run them yet.
"""

from finegrain import ExportProfile
from finegrain.exporters.half import Fp16


def profile() -> ExportProfile:
    return ExportProfile(
        name="tensorrt_fp16",
        text=Fp16(),
        image=Fp16(),
        # Re-ranking runs in ONNX Runtime.
        match=None,
        min_overlap=0.98,
        min_rank1_agreement=0.98,
    )
