"""Exact search with candidates from vectors in the memory of a GPU."""
