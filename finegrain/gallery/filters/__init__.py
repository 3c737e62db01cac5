"""Filters: what an expression means, and how each place evaluates it."""
