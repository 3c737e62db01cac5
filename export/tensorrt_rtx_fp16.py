"""GeForce and RTX GPUs (Turing, Ampere, Ada, Blackwell) with TensorRT-RTX: fp16 in the graph.

NVIDIA does not list data-centre Hopper (H100, H200) for TensorRT-RTX; use tensorrt_fp16 there. The
parity check runs the same graphs in ONNX Runtime on a CPU; no GPU has run them yet.
"""

from finegrain import ExportProfile
from finegrain.exporters.half import Fp16


def profile() -> ExportProfile:
    return ExportProfile(
        name="tensorrt_rtx_fp16",
        # Attention is one node, for which TensorRT-RTX has fused kernels in fp16, but not in fp32.
        opset=23,
        text=Fp16(),
        image=Fp16(),
        # Re-ranking runs in ONNX Runtime.
        match=None,
        min_overlap=0.98,
        min_rank1_agreement=0.98,
    )
