"""NVIDIA Ada, Hopper and Blackwell with TensorRT 10.12 to 11: linear layers in FP8, others in fp16.

The parity check runs the same graphs in ONNX Runtime on a CPU. It rounds to FP8 where the GPU does,
and computes in fp16 elsewhere. No GPU has run them yet.
"""

from finegrain import ExportProfile
from finegrain.exporters.fp8 import Fp8


def profile() -> ExportProfile:
    return ExportProfile(
        name="tensorrt_fp8",
        # The first opset with all operations of FP8.
        opset=21,
        text=Fp8(),
        image=Fp8(),
        min_overlap=0.9,
        min_rank1_agreement=0.9,
        max_drift=1.0,
    )
