"""A clock that jumps ahead deletes nothing in any store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryWarning
from finegrain.gallery import Gallery

START = datetime(2026, 5, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["file", "milvus-lite"])
def test_expiry_trusts_a_jump_only_at_a_second_look(kind: str, tmp_path: Path, monkeypatch):
    if kind == "milvus-lite":
        pytest.importorskip("milvus_lite")
        pytest.importorskip("pymilvus")
    moment = [START]
    monkeypatch.setattr("finegrain.times.now", lambda: moment[0])
    address = tmp_path / "g" if kind == "file" else f"milvus:{tmp_path}/g.db"

    def expire(at: datetime, **how: bool) -> int:
        moment[0] = at
        return gallery.expire(**how)

    with Gallery(address, fingerprint="a", dim=2) as gallery:
        gallery.add(np.eye(2), [None] * 2, expire_after=timedelta(days=30))
        late = START + timedelta(days=3650)
        for _ in range(2):
            with pytest.warns(GalleryWarning, match=r"the clock says 2036.*trust_clock=True"):
                assert expire(late) == 0
        assert len(gallery) == 0  # in no result, but still stored
        assert expire(START) == 0  # the clock is corrected
        assert len(gallery) == 2
        with pytest.warns(GalleryWarning):
            assert expire(START + timedelta(days=31)) == 0
        with pytest.warns(GalleryWarning):
            assert expire(START + timedelta(days=31, minutes=59)) == 0
        assert expire(START + timedelta(days=31, minutes=61)) == 2
        gallery.add(np.eye(1, 2), [None], expire_after=timedelta(days=9))
        assert expire(START + timedelta(days=99), trust_clock=True) == 1
        moment[0] = START
        assert len(gallery) == 0


@pytest.mark.parametrize("kind", ["file", "milvus-lite"])
def test_a_weekly_expiry_is_doubted_once(kind: str, tmp_path: Path, monkeypatch):
    if kind == "milvus-lite":
        pytest.importorskip("milvus_lite")
        pytest.importorskip("pymilvus")
    moment = [START]
    monkeypatch.setattr("finegrain.times.now", lambda: moment[0])
    address = tmp_path / "g" if kind == "file" else f"milvus:{tmp_path}/g.db"
    with Gallery(address, fingerprint="a", dim=2) as gallery:
        gallery.add(np.eye(2), [None] * 2, expire_after=timedelta(days=30))
        moment[0] += timedelta(days=7)
        with pytest.warns(GalleryWarning, match="the clock says"):
            assert gallery.expire() == 0
        deleted = []
        for _ in range(5):
            moment[0] += timedelta(days=7)
            deleted.append(gallery.expire())
        assert deleted == [0, 0, 0, 2, 0]
        moment[0] += timedelta(days=365)
        with pytest.warns(GalleryWarning, match="the clock says"):
            assert gallery.expire() == 0
