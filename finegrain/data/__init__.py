"""Datasets, the made-up ones included, and what turns them into training pictures."""
