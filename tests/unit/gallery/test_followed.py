"""Files beside a gallery follow the deletions of its pictures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite.tokens import TokenFile
from finegrain.records import PictureTokens


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "crops.gallery", dim=2) as opened:
        yield opened


@pytest.fixture
def tokens(gallery: Gallery):
    """Tokens of five pictures, the last of which expires."""
    ids = gallery.add(np.tile([1.0, 0.0], (4, 1)), ["a", "b", "c", "d"])
    ids += gallery.add([[0, 1]], ["e"], times=[datetime.now(UTC)], expire_after=3600)
    file = Path(f"{gallery.path}.tokens")
    with TokenFile(file, fingerprint="plan", tokens=1, width=4) as opened:
        made = PictureTokens(codes=np.ones((5, 1, 4), np.int8), scales=np.ones((5, 1), np.float32))
        opened.add({row.id: row.added_at for row in gallery.rows(ids)}, made)
        yield opened


def test_tokens_are_deleted_with_their_pictures(gallery: Gallery, tokens: TokenFile, monkeypatch):
    assert sorted(tokens.ids()) == [1, 2, 3, 4, 5]
    gallery.delete([1])
    assert sorted(tokens.ids()) == [2, 3, 4, 5]
    gallery.delete_where("image = 'b'")
    assert sorted(tokens.ids()) == [3, 4, 5]
    gallery.add([[1, 0]], ["c"], on_duplicate="replace")
    assert sorted(tokens.ids()) == [4, 5]
    later = datetime.now(UTC) + timedelta(days=1)
    monkeypatch.setattr("finegrain.times.now", lambda: later)
    assert gallery.expire() == 1
    assert sorted(tokens.ids()) == [4]


def test_an_exact_gallery_has_nothing_to_tune(gallery: Gallery):
    with pytest.raises(GalleryError, match="searches exactly"):
        gallery.tune([[1, 0]])
