"""A check that vectors fit into the memory of a GPU."""

from __future__ import annotations

from finegrain.errors import GalleryError

MIB = 2**20


def require_memory(needed: int, free: int) -> None:
    """Check that ``needed`` bytes are at most ``free`` bytes.

    Raises:
        GalleryError: The vectors do not fit.
    """
    if needed > free:
        raise GalleryError(
            f"expected {needed / MIB:,.1f} MiB of free GPU memory for the gallery's vectors, got "
            f"{free / MIB:,.1f} MiB. Free some, or search them with the gallery's own index"
        )
