"""Opt-in approximate search, for galleries of many millions of pictures.

Only the choice of candidates is approximate; the scores and the order of the returned hits are
exact. The recall of a kind of index and its effort depends on the data, and is lower for text
queries. :func:`tune` therefore measures it on queries of the user.
"""

from finegrain.index.approximate.index import ApproximateIndex
from finegrain.index.approximate.kinds import Approximate, Hnsw, Ivf, RaBitQ
from finegrain.index.approximate.tuning import Measured, Tuned, tune

__all__ = ["Approximate", "ApproximateIndex", "Hnsw", "Ivf", "Measured", "RaBitQ", "Tuned", "tune"]
