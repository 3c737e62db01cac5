"""Exact and approximate inner-product search over vectors, on CPU or GPU."""
