"""Queries are answered while pictures are added, in the same process or in another one.

The addition stops at chosen points until the test lets it continue. A query that waited for the
addition would never return.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from finegrain.encoder import Encoder
from finegrain.gallery.sqlite.store import overtaken
from finegrain.search.searcher import Searcher

NUM_PICTURES = 80
PATIENCE = 120
"""Seconds after which an addition that does not arrive at a point fails the test."""


@pytest.fixture
def folder(crops: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(NUM_PICTURES):
        shutil.copy(crops / f"{number % 12:02d}.jpg", folder / f"{number:03d}.jpg")
    return folder


class Stop:
    """A point at which a thread waits until the test lets it continue."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> None:
        self.arrived.set()
        assert self.go_on.wait(PATIENCE)


@pytest.fixture
def stop() -> Iterator[Stop]:
    stop = Stop()
    yield stop
    stop.go_on.set()


def add_in_thread(searcher: Searcher, folder: Path) -> threading.Thread:
    thread = threading.Thread(
        target=searcher.add, args=(folder,), kwargs={"progress": False}, daemon=True
    )
    thread.start()
    return thread


def check_queries(searcher: Searcher, expected: int) -> None:
    """Query by text, by picture, with a filter and with groups."""
    for query in ("red coat", np.zeros((128, 64, 3), np.uint8)):
        assert len(searcher.query(query, 1000)) == expected
    assert len(searcher.query("red coat", 1000, where="id > 0", group_by="image")) == expected


def test_a_query_answers_between_two_batches_of_an_add(
    searcher: Searcher, folder: Path, stop: Stop, monkeypatch
):
    stream_images = Encoder.stream_images

    def stopping(self, *words, **options):
        for number, batch in enumerate(stream_images(self, *words, **options)):
            if number == 1:
                stop()
            yield batch

    monkeypatch.setattr(Encoder, "stream_images", stopping)
    thread = add_in_thread(searcher, folder)
    assert stop.arrived.wait(PATIENCE)
    num_added = len(searcher.gallery)
    assert 0 < num_added < NUM_PICTURES
    check_queries(searcher, num_added)
    assert thread.is_alive()
    stop.go_on.set()
    thread.join(PATIENCE)
    check_queries(searcher, NUM_PICTURES)


def test_a_query_answers_beside_an_add_that_has_not_committed(
    searcher: Searcher, folder: Path, stop: Stop, monkeypatch
):
    searcher.add(folder / "000.jpg", progress=False)

    def stopping(*words):
        stop()
        return overtaken(*words)

    # It is called inside the transaction.
    monkeypatch.setattr("finegrain.gallery.sqlite.store.overtaken", stopping)
    thread = add_in_thread(searcher, folder)
    assert stop.arrived.wait(PATIENCE)
    check_queries(searcher, 1)
    assert thread.is_alive()
    stop.go_on.set()
    thread.join(PATIENCE)
    check_queries(searcher, NUM_PICTURES)


_CHILD = """
import sys
from pathlib import Path
from finegrain.encoder import Encoder
from finegrain.gallery.sqlite import store
from finegrain.search.searcher import Searcher

def stop(where):
    print(where, flush=True)
    assert sys.stdin.readline()

stream_images, overtaken = Encoder.stream_images, store.overtaken

def stopping_between(self, *words, **options):
    for number, batch in enumerate(stream_images(self, *words, **options)):
        if number == 1:
            stop("between")
        yield batch

def stopping_inside(*words):
    stop("inside")
    return overtaken(*words)

Encoder.stream_images = stopping_between
plan, folder = map(Path, sys.argv[1:])
with Searcher(plan, threads=1) as searcher:
    searcher.add(folder, progress=False)
    store.overtaken = stopping_inside
    Path(folder, "new.jpg").write_bytes(Path(folder, "000.jpg").read_bytes())
    searcher.add(folder / "new.jpg", progress=False)
print("done", flush=True)
"""


class Child:
    """Another process that adds, and stops where it prints a line."""

    def __init__(self, *words: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def arrive(self, where: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == where

    def go_on(self) -> None:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)


@pytest.fixture
def child(plan: Path, folder: Path) -> Iterator[Child]:
    child = Child(plan, folder)
    yield child
    child.process.kill()
    child.process.communicate()


def test_a_query_answers_beside_an_add_in_another_process(child: Child, plan: Path, folder: Path):
    child.arrive("between")
    with Searcher(plan, threads=1) as searcher:
        num_added = len(searcher.gallery)
        assert 0 < num_added < NUM_PICTURES
        check_queries(searcher, num_added)
        child.go_on()
        child.arrive("inside")
        check_queries(searcher, NUM_PICTURES)
        child.go_on()
        child.arrive("done")
        check_queries(searcher, NUM_PICTURES + 1)
