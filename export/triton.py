"""NVIDIA Triton: the portable fp32 plan, and beside it a model repository with its towers.

Searchers keep the plan for its tokenizer and their gallery, and take embeddings from the server:
``runtime="triton://host:8001/model"``. The precision of the towers is chosen as in any profile.
"""

from finegrain import ExportProfile
from finegrain.exporters.triton import TritonServing


def profile() -> ExportProfile:
    return ExportProfile(name="triton", triton=TritonServing())
