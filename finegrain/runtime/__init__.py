"""Runtimes: they run the towers of a model, with NumPy arrays as input and output.

This module imports nothing, so that ``runtime.ort`` works without PyTorch.
"""
