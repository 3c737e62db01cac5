"""Times as numbers, in the order of their texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finegrain.gallery.columns.table import Numbers

_LENGTH = len("2026-05-01T08:00:00.000Z")


def milliseconds(texts: Sequence[str]) -> Numbers:
    """Milliseconds since 1970 of times in the form in which a gallery stores them.

    Raises:
        ValueError: A text does not have this form.
    """
    if not all(len(text) == _LENGTH and text[-1] == "Z" for text in texts):
        raise ValueError("a time is not in the form 2026-05-01T08:00:00.000Z")
    # NumPy does not read the Z.
    moments = np.array([text[:-1] for text in texts], "datetime64[ms]")
    return moments.astype(np.int64).astype(np.float64)
