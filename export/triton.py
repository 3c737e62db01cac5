"""NVIDIA Triton: the portable fp32 plan, and a model repository with its towers.

Searchers use the plan for its tokenizer and their gallery, and get embeddings from the server:
``runtime="triton://host:8001/model"``. Any precision of the towers can be set.
"""

from finegrain import ExportProfile
from finegrain.exporters.triton import TritonServing


def profile() -> ExportProfile:
    return ExportProfile(name="triton", triton=TritonServing())
