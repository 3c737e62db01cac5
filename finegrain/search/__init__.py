"""Searching: pictures in, matches out."""
