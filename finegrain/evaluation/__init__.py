"""How good a model is: metrics, probes and protocols."""
