"""Queries beyond one text or one picture: examples, feedback, denied words, and probabilities."""
