"""Filtered queries, updates and deletions while a writer changes the columns of pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from finegrain.gallery import Gallery
from finegrain.gallery.sqlite.followed_store import FollowedStore
from finegrain.gallery.sqlite.store import Store
from finegrain.search.searcher import Searcher

WHERE = "camera = 'gate-1'"


@pytest.fixture
def filled(searcher: Searcher, crops: Path) -> Searcher:
    searcher.add(sorted(crops.iterdir()), metadata={"camera": "gate-1"}, progress=False)
    searcher.gallery.update(range(9, 13), {"camera": "gate-2"})
    return searcher


@contextmanager
def once_before(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, change: Callable[[], object]
) -> Iterator[None]:
    """Make a change before the next call of a method, as another process would."""
    original = getattr(owner, name)
    waiting = [change]

    def changed(store: Store, *arguments, **options):
        if waiting:
            waiting.pop()()
        return original(store, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, changed)
        yield
    assert not waiting


@pytest.mark.parametrize("is_same_gallery", [True, False])
@pytest.mark.parametrize("how", ["update", "delete"])
def test_every_match_satisfies_the_filter_beside_a_writer(
    filled: Searcher, monkeypatch, how: str, is_same_gallery: bool
):
    before = [match.id for match in filled.query("a red coat", k=5, where=WHERE)]
    writer = filled.gallery if is_same_gallery else Gallery(filled.gallery.path)

    def change() -> None:
        if how == "update":
            writer.update(before[:2], {"camera": "gate-2"})
        else:
            writer.delete(before[:2])

    with once_before(monkeypatch, FollowedStore, "rows", change):
        matches = filled.query("a red coat", k=5, where=WHERE)
    assert {match.camera for match in matches} == {"gate-1"}
    assert [match.id for match in matches][:3] == before[2:]
    assert [match.rank for match in matches] == [1, 2, 3, 4, 5]


def test_matches_satisfy_the_filter_while_a_thread_changes_columns(filled: Searcher):
    stop = threading.Event()

    def flip() -> None:
        with Gallery(filled.gallery.path) as other:
            number = 0
            while not stop.is_set():
                number += 1
                other.update(range(1, 7), {"camera": f"gate-{1 + number % 2}"})

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for _ in range(20):
            matches = filled.query("a red coat", k=12, where=WHERE)
            assert {match.camera for match in matches} <= {"gate-1"}
    finally:
        stop.set()
        thread.join()


def test_rows_may_be_checked_against_the_filter_of_a_search(filled: Searcher):
    gallery = filled.gallery
    assert [row.id for row in gallery.rows([12, 3, 9, 1], WHERE)] == [3, 1]
    assert [row.id for row in gallery.rows([12, 3], "id > 5 or image like '%02.jpg'")] == [12, 3]


@pytest.mark.parametrize("change", ["delete_where", "update"])
def test_a_change_by_filter_leaves_pictures_that_match_no_longer(
    tmp_path: Path, monkeypatch, change: str
):
    with Gallery(tmp_path / "g", dim=2) as gallery, Gallery(tmp_path / "g") as other:
        gallery.add(np.tile(np.float32([1, 0]), (4, 1)), [None] * 4, cameras=["gate-1"] * 4)

        def rescue() -> None:
            other.update([2], {"camera": "gate-2", "note": "keep"})

        if change == "update":
            with once_before(monkeypatch, Store, "change", rescue):
                assert gallery.update(WHERE, {"note": "drop"}) == 3
            assert [row.metadata["note"] for row in gallery.rows([1, 2, 3, 4])] == [
                "drop", "keep", "drop", "drop",
            ]  # fmt: skip
        else:
            with once_before(monkeypatch, Store, "writing", rescue):
                assert gallery.delete_where(WHERE) == 3
            assert list(gallery) == [2]


def test_an_update_keeps_columns_that_another_process_sets_meanwhile(tmp_path: Path, monkeypatch):
    with Gallery(tmp_path / "g", dim=2) as gallery, Gallery(tmp_path / "g") as other:
        gallery.add(np.eye(2, dtype=np.float32), [None] * 2, cameras=["gate-1"] * 2)
        original = Store.writing

        def late(store: Store):
            if store is gallery._store and not other.rows([1])[0].metadata:
                other.update([1], {"price": 5})
            return original(store)

        monkeypatch.setattr(Store, "writing", late)
        gallery.update([1, 2], {"stock": True})
        assert gallery.rows([1])[0].metadata == {"price": 5, "stock": True}
