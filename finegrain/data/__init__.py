"""Datasets, synthetic datasets included, and augmentation for training."""
