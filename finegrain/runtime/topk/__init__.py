"""Exact search over vectors that a GPU holds in half precision.

:class:`~finegrain.runtime.topk.exact.ExactTopK` says what the answer is. A scan estimates scores
from fp16 vectors, on a GPU by PyTorch or FAISS, and
:class:`~finegrain.runtime.topk.settled.SettledTopK` makes the exact answer of them: the same ids
and scores as the gallery's own index gives. Nothing is imported here, so that whoever takes one
scan does without the library of another.

Both scans are tested on a CPU, against the exact search. No GPU has run them yet.
"""
