"""CPUs with OpenVINO: int8 weights. OpenVINO quantises the inputs of products in groups.

It does so on processors with VNNI. On others it converts the weights to fp32, which is exact and
slower; use ``cpu_int8`` there.
"""

from finegrain import ExportProfile
from finegrain.exporters import Int8


def profile() -> ExportProfile:
    return ExportProfile(
        name="openvino_int8",
        runtime="openvino",
        text=Int8(activations="fp32"),
        image=Int8(activations="fp32"),
        # Re-ranking runs in ONNX Runtime.
        match=None,
        min_overlap=0.9,
        min_rank1_agreement=0.9,
        max_drift=1.0,
    )
