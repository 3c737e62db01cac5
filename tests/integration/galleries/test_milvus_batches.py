"""Additions to a gallery on Milvus that take several messages, of which no reader sees a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from finegrain import times
from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.gallery.milvus import MilvusAddress, batches, layout, store
from finegrain.gallery.milvus.connection import Connection

DIM = 8
MESSAGE_ROWS = 20


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module", autouse=True)
def _small_messages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "PAGE_ROWS", MESSAGE_ROWS)
        yield


@pytest.fixture(scope="module")
def kept(place: Callable[[str], str | Path]) -> Iterator[Gallery]:
    address = place("batches")
    if isinstance(address, Path):
        pytest.skip("a file writes in transactions")
    with Gallery(address, dim=DIM) as gallery:
        yield gallery


@pytest.fixture
def gallery(kept: Gallery) -> Gallery:
    kept.delete(kept)
    for one in kept._store._batches.additions():
        kept._store._connection.remove(kept._store._collection, [one.note_id])
    kept._store._batches._settled = set()
    return kept


def after_each_message(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call a function after each message of pictures, with the number of messages so far."""
    write, messages = Connection.write, [0]

    def counting(connection: Connection, name: str, documents: list) -> None:
        write(connection, name, documents)
        if documents[0]["id"] > 0:
            messages[0] += 1
            act(messages[0])

    monkeypatch.setattr(Connection, "write", counting)


def seen(gallery: Gallery) -> tuple[int, int, int, int]:
    """Numbers of pictures that a search, a filtered search, a count and a list of ids return."""
    hits = gallery.search(unit(1, seed=5), 1000)[0]
    filtered = gallery.search(unit(1, seed=5), 1000, "id != 0")[0]
    return len(hits), len(filtered), len(gallery), len(list(gallery))


def test_a_reader_sees_an_addition_completely_or_not_at_all(gallery: Gallery, monkeypatch):
    first = gallery.add(unit(3), [None] * 3)
    views = []
    after_each_message(monkeypatch, lambda number: views.append(seen(gallery)))
    ids = gallery.add(unit(90, seed=1), [None] * 90)
    assert views == [(3, 3, 3, 3)] * 5
    assert seen(gallery) == (93, 93, 93, 93)
    assert list(gallery) == sorted([*first, *ids])


def test_a_search_that_an_addition_overtakes_is_repeated(gallery: Gallery, monkeypatch):
    """The addition begins and ends while the answer of the search is on its way."""
    gallery.add(unit(3), [None] * 3)
    nearest = Connection.nearest
    late = [True]

    def overtaken(connection: Connection, *arguments: object) -> list:
        answers = []
        if late.pop() if late else False:
            with pytest.MonkeyPatch.context() as patch:

                def look(number: int) -> None:
                    if number == 2:
                        answers.extend(nearest(connection, *arguments))

                after_each_message(patch, look)
                gallery.add(unit(90, seed=1), [None] * 90)
            return answers
        return nearest(connection, *arguments)

    monkeypatch.setattr(Connection, "nearest", overtaken)
    (hits,) = gallery.search(unit(1, seed=5), 1000)
    assert len(hits) == 93


def test_settled_pictures_cost_no_further_request(gallery: Gallery, monkeypatch):
    gallery.add(unit(90), [None] * 90)
    gallery.search(unit(1), 200)

    def refuse(*_: object) -> None:
        raise AssertionError("asked for additions")

    monkeypatch.setattr(batches.Batches, "additions", refuse)
    assert len(gallery.search(unit(1), 200)[0]) == 90


def test_old_pictures_are_settled_together(gallery: Gallery, monkeypatch):
    gallery.add(unit(90), [None] * 90)
    later = times.now() + timedelta(hours=2)
    monkeypatch.setattr(times, "now", lambda: later)
    gallery.search(unit(1), 1)
    bound = gallery._store._batches._settled_until
    assert bound > max(gallery)
    monkeypatch.undo()
    gallery._store._batches._settled_until = 0


def test_an_addition_that_fails_leaves_nothing(gallery: Gallery, monkeypatch):
    gallery.add(unit(3), [None] * 3)

    def fail(number: int) -> None:
        if number == 3:
            raise GalleryError("the disk is full")

    with monkeypatch.context() as patch:
        after_each_message(patch, fail)
        with pytest.raises(GalleryError, match="disk is full"):
            gallery.add(unit(90, seed=1), [None] * 90)
    assert seen(gallery) == (3, 3, 3, 3)
    assert not gallery._store._batches.additions()


def test_what_a_killed_process_wrote_is_never_seen_and_is_removed(gallery: Gallery, monkeypatch):
    gallery.add(unit(3), [None] * 3)

    class Killed(BaseException):
        pass

    def kill(number: int) -> None:
        if number == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "remove", lambda *_: None)  # a killed process removes nothing
        after_each_message(patch, kill)
        with pytest.raises(Killed):
            gallery.add(unit(90, seed=1), [None] * 90)
    assert seen(gallery) == (3, 3, 3, 3)
    collection = gallery._store._collection
    assert gallery._store._connection.count(collection, "id > 0") == 63
    gallery._store._batches.remove_abandoned()
    assert gallery._store._connection.count(collection, "id > 0") == 63
    later = times.now() + 2 * batches.ABANDONED
    monkeypatch.setattr(times, "now", lambda: later)
    gallery._store._batches.remove_abandoned()
    assert gallery._store._connection.count(collection, "id > 0") == 3
    assert not gallery._store._batches.additions()


def test_notes_of_old_additions_are_removed_and_are_no_columns(gallery: Gallery, monkeypatch):
    gallery.add(unit(90), [None] * 90, metadata=[{"price": 1}] * 90)
    assert len(gallery._store._batches.additions()) == 1
    assert gallery._store.columns() == {"price": {"number"}}
    later = times.now() + 2 * batches.KEPT
    monkeypatch.setattr(times, "now", lambda: later)
    gallery.add(unit(90), [None] * 90)
    assert len(gallery._store._batches.additions()) == 1


def test_an_addition_of_too_many_spans_is_refused(gallery: Gallery, monkeypatch):
    monkeypatch.setattr(batches, "_MOST_BYTES", 10)
    with pytest.raises(GalleryError, match="add them in parts"):
        gallery.add(unit(90), [None] * 90)
    assert len(gallery) == 0


def test_a_gallery_of_an_earlier_version_opens_without_biases(
    place: Callable[[str], str | Path], kept: Gallery, monkeypatch
):
    address = place("earlier")
    connected = Connection(MilvusAddress.of(address))
    with monkeypatch.context() as patch:
        patch.setattr(layout, "FORMAT", 1)
        layout._create(
            connected, MilvusAddress.of(address).name, layout.Layout(None, DIM, has_biases=False)
        )
    connected.close()
    with Gallery(address, dim=DIM) as gallery:
        ids = gallery.add(unit(90), [None] * 90)
        np.testing.assert_array_equal(gallery.vectors(ids[5:6])[ids[5]], unit(90)[5])
        assert [row[0].id for row in gallery.search(unit(90)[::30], 1)] == ids[::30]
        assert gallery.biases(ids) == {}
        for refused in (
            lambda: gallery.set_bias(ids[:1], [0.5]),
            lambda: gallery.add(unit(1), [None], biases=[0.5]),
        ):
            with pytest.raises(GalleryError, match="made by an earlier version"):
                refused()
        assert len(gallery) == 90
