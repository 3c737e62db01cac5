"""Opt-in approximate search, for galleries of many millions of pictures.

Which pictures are looked at is approximate; their scores are exact, and so is the order of
those found. What a kind and its effort lose depends on the data, and on text queries above
all, so :func:`tune` measures it on the user's own.
"""

from finegrain.index.approximate.index import ApproximateIndex
from finegrain.index.approximate.kinds import Approximate, Hnsw, Ivf, RaBitQ
from finegrain.index.approximate.tuning import Measured, Tuned, tune

__all__ = ["Approximate", "ApproximateIndex", "Hnsw", "Ivf", "Measured", "RaBitQ", "Tuned", "tune"]
