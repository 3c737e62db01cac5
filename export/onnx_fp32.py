"""Portable fp32 for every platform of ONNX Runtime. It is the reference of other targets."""

from finegrain import ExportProfile


def profile() -> ExportProfile:
    return ExportProfile(name="onnx_fp32")
