"""Search over vectors: which rows score highest, exactly or approximately, on CPU or GPU."""
