"""Exact search whose candidates come from vectors that stay on a GPU."""
