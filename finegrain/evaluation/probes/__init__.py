"""Probes: tests of abilities that rank metrics do not show, such as colours and negation."""

from finegrain.evaluation.probes.accuracy import Accuracy, ProbeReport, Skipped
from finegrain.evaluation.probes.ask import probe, probe_split
from finegrain.evaluation.probes.known_truth import QueryPrecision, query_precision, swap_accuracy

__all__ = [
    "Accuracy",
    "ProbeReport",
    "QueryPrecision",
    "Skipped",
    "probe",
    "probe_split",
    "query_precision",
    "swap_accuracy",
]
