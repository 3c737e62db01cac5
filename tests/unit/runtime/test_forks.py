"""A forked process gets a result or a clear error, and never hangs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from finegrain.encoder import Encoder
from finegrain.errors import PlanError
from finegrain.gallery import Gallery
from finegrain.search.searcher import Searcher

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

DIM = 16
SECONDS = 60


def in_child(work: Callable[[], object]) -> str:
    """The result of work in a forked process, which is killed if it hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = str(work())
        except BaseException as error:  # shown in the output of the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    killer = threading.Timer(SECONDS, os.kill, (child, signal.SIGKILL))
    killer.start()
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    killer.cancel()
    return said or "nothing: it hung"


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as opened:
        opened.add(unit(500), [str(i) for i in range(500)], pids=range(500))
        opened.search(unit(3), 5)
        yield opened


def test_a_child_searches_and_writes_and_so_does_its_parent(gallery: Gallery):
    expected = gallery.search(unit(3), 5)
    child = in_child(
        lambda: (
            gallery.search(unit(3), 5) == expected,
            gallery.search(unit(1), 1, where="pid = 7")[0][0].id,
            gallery.add(unit(1, 9), ["child"]),
            gallery.delete([3]),
        )
    )
    assert child == "(True, 8, [501], 1)"
    assert gallery.search(unit(1, 9), 1)[0][0].id == 501
    assert 3 not in gallery
    assert gallery.add(unit(1), ["parent"]) == [502]
    assert gallery.check().is_valid


def test_threads_of_the_parent_do_not_block_the_child(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gallery._store._columns, "_quick_steps", 1)  # filters use columns in memory
    stop = threading.Event()

    def work(seed: int) -> None:
        while not stop.is_set():
            gallery.search(unit(1, seed), 3, where="pid < 400")
            gallery.add(unit(1, seed), [None])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(8):
            time.sleep(0.02)
            child = in_child(
                lambda: (
                    gallery.search(unit(1), 1)[0][0].id,
                    gallery.search(unit(1), 1, where="pid > 6 and pid < 8")[0][0].id,
                    len(gallery.add(unit(1), ["c"])),
                )
            )
            assert child == "(1, 8, 1)", number
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert gallery.check().is_valid


def test_the_child_keeps_its_gallery_after_the_parent_closes(gallery: Gallery, tmp_path: Path):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.read(reading, 1)
        ids = gallery.add(unit(1), ["later"])
        os._exit(0 if ids == [501] else 1)
    gallery.close()
    os.write(writing, b"x")
    assert os.waitpid(child, 0)[1] == 0
    with Gallery(tmp_path / "g") as again:
        assert 501 in again


_USUAL_END = """
import os, sys
from finegrain.search.searcher import Searcher

searcher = Searcher(sys.argv[1], threads=2)
searcher.add(sys.argv[2], progress=False)
searcher.query("coat")
child = os.fork()
if child:
    status = os.waitpid(child, 0)[1]
    print("child", status, len(searcher.query("coat", 3)))
else:
    searcher.query("coat")
"""


def test_a_normal_exit_of_a_child_does_not_affect_the_parent(plan: Path, crops: Path):
    command = [sys.executable, "-c", _USUAL_END, str(plan), str(crops)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.stdout == "child 0 3\n", done.stderr
    with Gallery(plan.with_suffix(".gallery")) as again:
        assert again.check().is_valid


# --- a searcher -------------------------------------------------------------------------


@pytest.fixture
def searcher(plan: Path, crops: Path):
    with Searcher(plan, threads=2) as opened:
        opened.add(crops, progress=False)
        yield opened


def test_a_searcher_answers_in_a_child(searcher: Searcher):
    expected = [(m.id, m.score) for m in searcher.query("red coat", 3)]
    child = in_child(lambda: [(m.id, m.score) for m in searcher.query("red coat", 3)])
    assert child == str(expected)
    assert [(m.id, m.score) for m in searcher.query("red coat", 3)] == expected


_SEARCHER: Searcher | None = None


def _ask(text: str) -> list[int]:
    assert _SEARCHER is not None
    return [match.id for match in _SEARCHER.query(text, 2)]


def test_a_pool_of_processes_answers(searcher: Searcher, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "_SEARCHER", searcher)
    expected = _ask("red coat")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        answers = pool.map_async(_ask, ["red coat"] * 6).get(SECONDS)
    assert answers == [expected] * 6


def test_a_replaced_plan_is_detected_in_a_child(searcher: Searcher, plan: Path):
    searcher.query("coat", 1)
    plan.write_bytes(plan.read_bytes()[:-5])
    assert in_child(lambda: searcher.query("coat", 1)).startswith("PlanError")


def test_a_runtime_that_cannot_be_used_in_a_child_is_an_error(searcher: Searcher):
    class Elsewhere:
        embed_dim = 32

        def close(self) -> None: ...
        def encode_images(self, pixels): ...
        def encode_texts(self, ids, eot): ...

    encoder = Encoder(Elsewhere(), searcher._encoder.tokenizer, searcher._encoder.transform)
    child = in_child(lambda: encoder.encode_texts(["coat"]))
    assert child.startswith("PlanError: Elsewhere was started before this process was forked")


def test_a_wrong_number_of_embeddings_is_an_error(searcher: Searcher, monkeypatch):
    runtime = searcher._encoder.runtime
    monkeypatch.setattr(runtime, "encode_texts", lambda ids, eot: np.zeros((2, 32), np.float32))
    monkeypatch.setattr(runtime, "encode_images", lambda pixels: np.zeros((32,), np.float32))
    with pytest.raises(PlanError, match=r"for each of 1 inputs .*, got shape \[2, 32\]"):
        searcher.query("coat")
    with pytest.raises(PlanError, match=r"for each of 1 inputs .*, got shape \[32\]"):
        searcher.query(np.zeros((8, 8, 3), np.uint8))
