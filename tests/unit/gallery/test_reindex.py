"""Reindexing with another plan can be resumed, and switches all vectors at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.records import Problem

OLD, NEW = 4, 6
JPEG = b"\xff\xd8\xff"


@dataclass
class Batch:
    positions: list[int]
    embeddings: np.ndarray
    problems: list[Problem]


@dataclass
class FakeEncoder:
    """Embeds a file as the axis in its name, in batches of two, and may be stopped before one."""

    embed_dim: int = NEW
    asked: list[str] = field(default_factory=list)
    before_batch: Callable[[int], None] = lambda _number: None

    def stream_images(self, sources: Sequence[Path | bytes]) -> Iterator[Batch]:
        for start in range(0, len(sources), 2):
            self.before_batch(start // 2)
            batch = Batch([], np.empty((0, self.embed_dim), np.float32), [])
            for position, source in enumerate(sources[start : start + 2], start):
                name = source.decode("latin1") if isinstance(source, bytes) else str(source)
                self.asked.append(name)
                if isinstance(source, Path) and not source.exists():
                    batch.problems.append(Problem(where=name, why="no such file"))
                    continue
                axis = source[-1] if isinstance(source, bytes) else int(source.read_text())
                batch.positions.append(position)
                row = np.eye(self.embed_dim, dtype=np.float32)[axis]
                batch.embeddings = np.concatenate([batch.embeddings, [row]])
            yield batch


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_text(str(number))
    return [str(path) for path in paths]


@pytest.fixture
def gallery(tmp_path: Path, images: list[str]):
    with Gallery(tmp_path / "g", fingerprint="old", dim=OLD) as opened:
        opened.add(np.repeat(np.eye(1, OLD), 5, axis=0), images, pids=range(5))
        opened.add(np.eye(1, OLD), [None], thumbnails=[JPEG + b"\x05"])
        yield opened


def best(gallery: Gallery) -> list[int]:
    return [hits[0].id for hits in gallery.search(np.eye(NEW), 1)]


def test_all_pictures_get_vectors_of_the_new_plan(gallery: Gallery):
    gallery.search(np.eye(1, OLD), 1)
    done = gallery.reindex(FakeEncoder(), "new", progress=False)
    assert (done.num_encoded, done.problems, done.switched) == (6, [], True)
    assert (gallery.fingerprint, gallery.dim) == ("new", NEW)
    assert best(gallery) == [1, 2, 3, 4, 5, 6]
    assert [row.pid for row in gallery.rows(gallery)] == [0, 1, 2, 3, 4, None]
    with Gallery(gallery.path, fingerprint="new", dim=NEW) as again:
        assert best(again) == [1, 2, 3, 4, 5, 6]
        assert again.add(np.eye(1, NEW), [None]) == [7]
    with pytest.raises(GalleryError, match="filled with plan new, and this is plan old"):
        Gallery(gallery.path, fingerprint="old")


def test_reindexing_with_the_same_plan_does_nothing(gallery: Gallery):
    encoder = FakeEncoder()
    gallery.reindex(encoder, "new", progress=False)
    encoder.asked.clear()
    done = gallery.reindex(encoder, "new", progress=False)
    assert (done.num_encoded, done.switched, encoder.asked) == (0, True, [])


def test_an_empty_gallery_is_switched(tmp_path: Path):
    with Gallery(tmp_path / "empty", fingerprint="old", dim=OLD) as empty:
        assert empty.reindex(FakeEncoder(), "new", progress=False).switched
        assert empty.add(np.eye(1, NEW), [None]) == [1]


def test_an_interrupted_reindexing_is_continued(gallery: Gallery):
    def stopped(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    first, second = FakeEncoder(before_batch=stopped), FakeEncoder()
    with pytest.raises(KeyboardInterrupt):
        gallery.reindex(first, "new", progress=False)
    assert len(gallery.search(np.eye(1, OLD), 9)[0]) == 6  # still the old vectors
    path = gallery.path
    gallery.close()
    with Gallery(path, fingerprint="old") as again:
        done = again.reindex(second, "new", progress=False)
        assert (done.num_encoded, done.switched) == (2, True)
        assert not set(first.asked) & set(second.asked)
        assert best(again) == [1, 2, 3, 4, 5, 6]


def test_reindexing_with_a_third_plan_starts_again(gallery: Gallery):
    def stopped(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.reindex(FakeEncoder(before_batch=stopped), "new", progress=False)
    done = gallery.reindex(FakeEncoder(embed_dim=7), "newer", progress=False)
    assert (done.num_encoded, gallery.dim) == (6, 7)


def test_searches_work_until_the_switch_and_then_fail(gallery: Gallery):
    with Gallery(gallery.path, fingerprint="old") as other:

        def ask(_number: int) -> None:
            assert len(other.search(np.eye(1, OLD), 9)[0]) == 6

        gallery.reindex(FakeEncoder(before_batch=ask), "new", progress=False)
        with pytest.raises(GalleryError, match=r"reindexed with plan new since.*Open it again"):
            other.search(np.eye(1, OLD), 9)
        with pytest.raises(GalleryError, match="reindexed with plan new"):
            other.add(np.eye(1, OLD), [None])


def test_changes_during_reindexing_are_applied(gallery: Gallery, images: list[str]):
    with Gallery(gallery.path, fingerprint="old") as other:

        def change(number: int) -> None:
            if number == 1 and len(other) == 6:
                other.add(np.eye(1, OLD), images[2:3], on_duplicate="replace")
                other.delete([6])

        gallery.reindex(FakeEncoder(before_batch=change), "new", progress=False)
    assert list(gallery) == [1, 2, 4, 5, 7]
    assert best(gallery)[:5] == [1, 2, 7, 4, 5]


def test_pictures_that_cannot_be_read_are_listed_and_keep_the_old_vectors(
    gallery: Gallery, images: list[str]
):
    Path(images[1]).unlink()
    gallery.add(np.eye(1, OLD), [None])
    done = gallery.reindex(FakeEncoder(), "new", progress=False)
    assert (done.num_encoded, done.switched) == (5, False)
    assert [str(problem) for problem in done.problems] == [
        f"{images[1]}: no such file",
        "picture 7: it has no file and no thumbnail",
    ]
    assert "keeps its old vectors" in str(done)
    assert gallery.fingerprint == "old"
    assert len(gallery.search(np.eye(1, OLD), 9)[0]) == 7
    Path(images[1]).write_text("1")  # the file exists again
    encoder = FakeEncoder()
    done = gallery.reindex(encoder, "new", drop_unreadable=True, progress=False)
    assert (done.num_encoded, done.switched, encoder.asked) == (1, True, [images[1]])
    assert [problem.where for problem in done.problems] == ["picture 7"]
    assert "dropped 1 pictures" in str(done)
    assert best(gallery) == list(gallery) == [1, 2, 3, 4, 5, 6]


def test_a_later_reindexing_with_another_plan_takes_over(gallery: Gallery):
    with Gallery(gallery.path) as other:

        def overtake(number: int) -> None:
            if number == 1:
                other.reindex(FakeEncoder(embed_dim=7), "newest", progress=False)

        with pytest.raises(GalleryError, match="reindexed with plan newest"):
            gallery.reindex(FakeEncoder(before_batch=overtake), "new", progress=False)
        assert (other.fingerprint, len(other.search(np.eye(1, 7), 9)[0])) == ("newest", 6)


def test_an_encoder_with_a_wrong_width_is_refused(gallery: Gallery):
    encoder = FakeEncoder(embed_dim=8)
    original = encoder.stream_images

    def narrow(sources):
        for batch in original(sources):
            batch.embeddings = batch.embeddings[:, :3]
            yield batch

    encoder.stream_images = narrow  # type: ignore[method-assign]
    with pytest.raises(GalleryError, match=r"shape \[N, 8\]"):
        gallery.reindex(encoder, "new", progress=False)
    assert len(gallery.search(np.eye(1, OLD), 9)[0]) == 6
