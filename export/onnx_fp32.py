"""Portable fp32: runs wherever ONNX Runtime does, and is the truth other targets derive from."""

from finegrain import ExportProfile


def profile() -> ExportProfile:
    return ExportProfile(name="onnx_fp32")
