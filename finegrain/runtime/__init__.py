"""Runtimes: numpy in, numpy out.

Nothing is imported here, so that the serving wing takes ``runtime.ort`` without torch.
"""
