"""Evaluation of models: metrics, probes and protocols."""
