"""Codes of an approximate index that are kept next to a gallery."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain import times
from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite.files import codes_of
from finegrain.index.approximate import Approximate, Hnsw, Ivf, RaBitQ, code_file, keeping
from finegrain.index.approximate import index as approximate_index
from finegrain.index.approximate.code_erasure import draft_of, forget_codes, keep_codes
from finegrain.index.approximate.code_file import CodeFile, CodesInvalidError
from finegrain.index.approximate.structures import Graph
from finegrain.index.approximate.trained import Trained

DIM = 24
COUNT = 900
KINDS = (RaBitQ(), RaBitQ(dim=16, bits=1, candidates=64), Ivf(), Hnsw())
OPEN_KINDS = pytest.mark.parametrize("kind", KINDS, ids=str)


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate_index, "TAIL_ROWS", 300)
        patch.setattr(code_file, "BATCH_ROWS", 250)
        patch.setattr(keeping, "BATCH_ROWS", 250)
        yield


@pytest.fixture
def trainings(made, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows with which an index was trained."""
    rows: list[int] = []
    over_all = Trained.over.__func__

    def counting(cls, truth, kind):
        rows.append(len(truth.ids()))
        return over_all(cls, truth, kind)

    monkeypatch.setattr(Trained, "over", classmethod(counting))
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Approximate, Path], Path]:
    """Copies a gallery with kept codes into a folder; each kind is trained only once."""
    folders = {kind: tmp_path_factory.mktemp("made") for kind in KINDS}
    for kind, folder in folders.items():
        with Gallery(folder / "g", dim=DIM, index=kind) as gallery:
            gallery.add(unit(COUNT), [f"{n}.jpg" for n in range(COUNT)])
            gallery.search(unit(1), 1)

    def copied(kind: Approximate, folder: Path) -> Path:
        shutil.copytree(folders[kind], folder, dirs_exist_ok=True)
        return folder / "g"

    return copied


def hits_of(path: Path, kind: Approximate, seed: int = 1) -> list:
    with Gallery(path, index=kind) as gallery:
        return gallery.search(unit(20, seed), 5)


def code_bytes(path: Path, ids: list[int]) -> list[bytes]:
    """The bytes of the codes of some rows."""
    with CodeFile(codes_of(path), writable=False) as file:
        codes = {
            int(id_): code.tobytes()
            for batch, _ in file.batches()
            for id_, code in zip(batch.ids, batch.codes, strict=True)
        }
    return [codes[id_] for id_ in ids]


def stored(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())


@contextmanager
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", GalleryWarning)
        yield


# --- opening ----------------------------------------------------------------------------


@OPEN_KINDS
def test_codes_are_opened_and_not_made_again(kind, made, tmp_path: Path, trainings: list[int]):
    path = made(kind, tmp_path)
    with silent():
        before = hits_of(path, kind)
    assert trainings == []
    codes_of(path).unlink()
    assert hits_of(path, kind) == before
    assert trainings == [COUNT]


def test_only_their_owner_may_read_codes(made, tmp_path: Path):
    path = made(KINDS[0], tmp_path)
    assert stat.S_IMODE(codes_of(path).stat().st_mode) == 0o600
    with Gallery(path) as gallery:
        assert codes_of(path).name in gallery.stats().disk
        os.chmod(codes_of(path), 0o644)
        assert any("g.codes may be read by others" in text for text in gallery.check().remarks)


def test_another_effort_opens_the_same_codes(made, tmp_path: Path, trainings: list[int]):
    path = made(KINDS[0], tmp_path)
    hits_of(path, RaBitQ(candidates=64))
    assert trainings == []


def test_other_settings_replace_the_codes(made, tmp_path: Path, trainings: list[int]):
    path = made(RaBitQ(), tmp_path)
    other = RaBitQ(bits=4)
    hits_of(path, other)
    hits_of(path, other)
    assert trainings == [COUNT]


@OPEN_KINDS
def test_additions_are_kept_when_they_are_coded(kind, made, tmp_path: Path, trainings: list[int]):
    path = made(kind, tmp_path)
    before = codes_of(path).read_bytes()
    with Gallery(path, index=kind) as gallery:
        gallery.add(unit(400, 7), [None] * 400)
        hits = gallery.search(unit(400, 7)[::40], 1)
        gallery.add(unit(10, 8), [None] * 10)  # these stay in the tail
    with CodeFile(codes_of(path), writable=False) as file:
        assert sum(len(batch.ids) for batch, _ in file.batches()) == COUNT + 400
    is_appended = codes_of(path).read_bytes().startswith(before)
    assert is_appended == kind.structure.is_appended_to
    with silent(), Gallery(path, index=kind) as gallery:
        assert gallery.search(unit(400, 7)[::40], 1) == hits
        assert [row[0].id for row in gallery.search(unit(10, 8), 1)] == list(range(1301, 1311))
    assert trainings == []


@OPEN_KINDS
def test_codes_stay_valid_after_a_compaction(kind, made, tmp_path: Path, trainings: list[int]):
    path = made(kind, tmp_path)
    with Gallery(path) as gallery:
        gallery.delete(range(100, 300))
        gallery.compact()
    with silent():
        hits = hits_of(path, kind)
    assert trainings == []
    assert not {hit.id for row in hits for hit in row} & set(range(100, 300))


def test_a_gallery_that_lost_most_rows_is_trained_again(made, tmp_path: Path, trainings: list[int]):
    path = made(KINDS[0], tmp_path)
    with Gallery(path) as gallery:
        gallery.delete(range(1, 500))
    with silent():
        hits_of(path, KINDS[0])
    assert trainings == [COUNT - 499]
    with Gallery(path, index=KINDS[0]) as gallery:
        gallery.search(unit(1), 1)
        gallery.delete(range(500, 800))
        assert len(gallery.search(unit(1), 200)[0]) == 101
    assert not codes_of(path).exists()


def test_a_read_only_gallery_opens_codes_and_writes_none(made, tmp_path: Path, monkeypatch):
    path = made(KINDS[0], tmp_path)
    want = hits_of(path, KINDS[0])
    stored_codes = codes_of(path).read_bytes()
    with Gallery(path, index=KINDS[0]) as gallery:
        monkeypatch.setattr(gallery._store, "read_only", True)
        with silent():
            assert gallery.search(unit(20, 1), 5) == want
            gallery._store._follower._index._rebuild()
    assert codes_of(path).read_bytes() == stored_codes


# --- deletion ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_searched", [True, False])
@pytest.mark.parametrize("kind", [RaBitQ(), Hnsw()], ids=str)
def test_no_byte_of_a_deleted_code_stays(kind, is_searched: bool, made, tmp_path: Path):
    path = made(kind, tmp_path)
    ids = [3, 250, 251, 900]
    codes = code_bytes(path, ids)
    assert all(code in stored(tmp_path) for code in codes)
    with Gallery(path, index=kind if is_searched else None) as gallery:
        gallery.search(unit(1), 1)
        gallery.delete(ids)
        assert not any(code in stored(tmp_path) for code in codes)
    with silent():
        hits = hits_of(path, kind, seed=0)
    assert not {hit.id for row in hits for hit in row} & set(ids)


def test_no_byte_of_an_expired_code_stays(tmp_path: Path, monkeypatch):
    path, kind = tmp_path / "g", RaBitQ()
    with Gallery(path, dim=DIM, index=kind) as gallery:
        brief = gallery.add(unit(40, 9), [None] * 40, expire_after=0.5)
        gallery.add(unit(COUNT), [None] * COUNT)
        gallery.search(unit(1), 1)
        codes = code_bytes(path, brief)
        assert codes[0] in stored(tmp_path)
        later = datetime.now(UTC) + timedelta(seconds=0.6)
        monkeypatch.setattr(times, "now", lambda: later)
        assert gallery.expire() == 40
        assert not any(code in stored(tmp_path) for code in codes)


def test_another_plan_erases_all_codes(made, tmp_path: Path):
    path = made(KINDS[0], tmp_path)
    codes = code_bytes(path, [1, 500, COUNT])
    with Gallery(path) as gallery:
        gallery._store._forget_plan()
    assert not any(code in stored(tmp_path) for code in codes)


@OPEN_KINDS
def test_recall_after_deletions_is_that_of_new_codes(kind, made, tmp_path: Path):
    path = made(kind, tmp_path)
    with Gallery(path) as gallery:
        gallery.delete(range(1, COUNT, 3))
        exact = gallery.search(unit(50, 1), 10)
    opened = recall(path, kind, exact)
    codes_of(path).unlink()
    assert opened > recall(path, kind, exact) - 0.02


def recall(path: Path, kind: Approximate, exact: list) -> float:
    with Gallery(path, index=kind) as gallery:
        rows = gallery.search(unit(50, 1), 10)
    same = [{hit.id for hit in a} & {hit.id for hit in b} for a, b in zip(rows, exact, strict=True)]
    return sum(map(len, same)) / 500


def test_pictures_deleted_while_codes_are_written_have_none(tmp_path: Path, monkeypatch):
    path, kind = tmp_path / "g", RaBitQ()
    ids = [1, 300, 890]
    written: list[bytes] = []
    publish = keeping.draft

    @contextmanager
    def interrupted(final: Path) -> Iterator[Path]:
        with publish(final) as unfinished:
            sync = CodeFile.sync

            def delete_first(file: CodeFile) -> None:
                sync(file)
                if not written and file.path == unfinished:
                    written.append(unfinished.read_bytes())
                    with Gallery(path) as other:
                        other.delete(ids)

            monkeypatch.setattr(CodeFile, "sync", delete_first)
            yield unfinished

    monkeypatch.setattr(keeping, "draft", interrupted)
    with Gallery(path, dim=DIM, index=kind) as gallery:
        gallery.add(unit(COUNT), [None] * COUNT)
        gallery.search(unit(1), 1)
        with CodeFile(codes_of(path), writable=False) as file:
            kept = {int(id_) for batch, _ in file.batches() for id_ in batch.ids}
        assert written
        assert {-id_ for id_ in ids} <= kept
        assert not kept & set(ids)
        (hits,) = gallery.search(unit(1), 1)
        assert hits[0].id not in ids


# --- interruptions ----------------------------------------------------------------------


class Killed(BaseException):
    """Ends a process in a test."""


def killed_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    left = [writes]
    write = CodeFile._write

    def limited(file: CodeFile, at: int, *parts: object) -> None:
        for part in parts:
            if not left[0]:
                file._file.flush()
                raise Killed
            left[0] -= 1
            write(file, at, part)
            at = file._file.tell()

    monkeypatch.setattr(CodeFile, "_write", limited)


@pytest.mark.parametrize("writes", [0, 3, 6, 11])
@pytest.mark.parametrize("kind", [RaBitQ(), Hnsw()], ids=str)
def test_an_interrupted_addition_loses_nothing(kind, writes: int, made, tmp_path: Path):
    path = made(kind, tmp_path)
    with pytest.MonkeyPatch.context() as patch, Gallery(path, index=kind) as gallery:
        gallery.add(unit(400, 7), [None] * 400)
        killed_after(patch, writes)
        with pytest.raises(Killed):
            gallery.search(unit(1), 1)
    for _ in range(2):  # the file of the first opening is opened by the second
        assert [row[0].id for row in hits_of_rows(path, kind)] == list(range(901, 1301, 40))


def hits_of_rows(path: Path, kind: Approximate) -> list:
    with silent(), Gallery(path, index=kind) as gallery:
        return gallery.search(unit(400, 7)[::40], 1)


@pytest.mark.parametrize("writes", [0, 2, 3, 5, 8, 10, 11])
def test_an_interrupted_erasure_is_completed(writes: int, made, tmp_path: Path):
    path = made(KINDS[0], tmp_path)
    ids = [3, 4, 700]
    codes = code_bytes(path, ids)
    with pytest.MonkeyPatch.context() as patch, Gallery(path) as gallery:
        killed_after(patch, writes)
        with pytest.raises(Killed):
            gallery.delete(ids)
    with silent():
        hits = hits_of(path, KINDS[0], seed=0)
    assert not {hit.id for row in hits for hit in row} & set(ids)
    assert not any(code in stored(tmp_path) for code in codes)


def test_a_file_that_was_not_completed_is_removed(made, tmp_path: Path):
    path = made(KINDS[0], tmp_path)
    shutil.copy(codes_of(path), draft_of(codes_of(path)))
    with Gallery(path) as gallery:
        codes = code_bytes(path, [5])
        gallery.delete([5])
    assert not any(code in stored(tmp_path) for code in codes)
    keep_codes(codes_of(path), np.arange(1, COUNT + 1))
    assert not draft_of(codes_of(path)).exists()


def test_a_full_disk_leaves_the_search_as_it_is(made, tmp_path: Path, monkeypatch):
    path = made(KINDS[0], tmp_path)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with Gallery(path, index=KINDS[0]) as gallery:
        gallery.search(unit(1), 1)
        gallery.add(unit(400, 7), [None] * 400)
        monkeypatch.setattr(CodeFile, "append", full)
        with pytest.warns(GalleryWarning, match=r"g.codes is not written: .*No space left"):
            hits = gallery.search(unit(400, 7)[::40], 1)
        assert [row[0].id for row in hits] == list(range(901, 1301, 40))
    monkeypatch.undo()
    assert not draft_of(codes_of(path)).exists()


# --- files that do not belong, or are damaged -------------------------------------------


def test_codes_of_another_gallery_are_replaced(made, tmp_path: Path, trainings: list[int]):
    kind = KINDS[0]
    (tmp_path / "a").mkdir()
    path = made(kind, tmp_path / "a")
    with Gallery(tmp_path / "b", dim=DIM, index=kind) as gallery:
        gallery.add(unit(COUNT, 5), [None] * COUNT)
        shutil.copy(codes_of(path), codes_of(tmp_path / "b"))
        foreign = code_bytes(path, [1, COUNT])
        assert [row[0].id for row in gallery.search(unit(COUNT, 5)[::90], 1)] == list(
            range(1, COUNT + 1, 90)
        )
    assert trainings == [COUNT]
    assert not any(code in codes_of(tmp_path / "b").read_bytes() for code in foreign)


def test_codes_of_a_few_other_pictures_are_noticed(made, tmp_path: Path, trainings: list[int]):
    path = made(KINDS[0], tmp_path)
    with CodeFile(codes_of(path), writable=True) as file:
        file.erase(np.arange(20, 40))  # the gallery still has these pictures
    with pytest.warns(GalleryWarning, match="another gallery or moment: 20 of 900 vectors"):
        hits = hits_of(path, KINDS[0], seed=0)
    assert [row[0].id for row in hits] == list(range(1, 21))
    assert trainings == [COUNT]


@OPEN_KINDS
def test_codes_of_an_earlier_moment_are_followed_up(kind, made, tmp_path: Path, trainings):
    path = made(kind, tmp_path)
    earlier = codes_of(path).read_bytes()
    with Gallery(path, index=kind) as gallery:
        codes = code_bytes(path, [2, 3])
        gallery.delete([2, 3])
        gallery.add(unit(400, 7), [None] * 400)
        gallery.search(unit(1), 1)
    codes_of(path).write_bytes(earlier)
    with silent():
        hits = hits_of(path, kind, seed=0)
    assert [row[0].id for row in hits][3:] == list(range(4, 21))
    assert trainings == []
    assert not any(code in stored(tmp_path) for code in codes)


@settings(max_examples=8, deadline=None)
@given(kind=st.sampled_from([RaBitQ(), Hnsw()]), place=st.floats(0, 1), change=st.integers(0, 255))
def test_a_damaged_or_short_file_is_opened_or_replaced(kind, place, change, made):
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore", GalleryWarning)
        path = made(kind, Path(name))
        data = bytearray(codes_of(path).read_bytes())
        at = int(place * (len(data) - 1))
        if change:
            data[at] ^= change
        else:
            del data[at:]
        codes_of(path).write_bytes(data)
        for _ in range(2):
            hits = hits_of(path, kind, seed=0)
            assert [row[0].id for row in hits] == list(range(1, 21))
        with CodeFile(codes_of(path), writable=False) as file:
            rows = sum(len(batch.ids) for batch, _ in file.batches())
        assert rows >= COUNT - 300


def test_damaged_codes_are_not_used(made, tmp_path: Path):
    path = made(KINDS[0], tmp_path)
    (code,) = code_bytes(path, [600])
    data = codes_of(path).read_bytes()
    codes_of(path).write_bytes(data.replace(code, code[::-1]))
    with CodeFile(codes_of(path), writable=False) as file:
        assert sum(len(batch.ids) for batch, _ in file.batches()) == 500


@pytest.mark.parametrize(
    "damage",
    [
        lambda arranged: arranged.__setitem__(0, 10**6),
        lambda arranged: arranged.__setitem__(1, 0),
        lambda arranged: arranged.__setitem__(1, 99),
        lambda arranged: arranged.__setitem__(-1, COUNT),
        lambda arranged: arranged.__setitem__(-1, -2),
    ],
)
def test_a_graph_that_leads_out_of_its_rows_is_refused(damage, made, tmp_path: Path):
    kind = Hnsw()
    path = made(kind, tmp_path)
    with CodeFile(codes_of(path), writable=False) as file:
        learned = file.learned()
        batches = [batch for batch, _ in file.batches()]
    damage(batches[0].arrangement)
    rows = [keeping.CodedRows(np.arange(len(b.ids)), b.codes, b.arrangement) for b in batches]
    with pytest.raises(CodesInvalidError, match="graph"):
        kind.structure.restored(DIM, learned, rows)


def test_a_graph_whose_links_leave_their_level_is_refused():
    graph = Graph(links=2)
    levels, links = [2, 1], [1, -1, -1, -1, 1, -1, 0, -1, -1, -1]
    arranged = np.array([0, *levels, *links], np.int32)
    rows = [keeping.CodedRows(np.arange(2), np.zeros((2, DIM), np.uint8), arranged)]
    with pytest.raises(CodesInvalidError, match="leave their level"):
        graph.restored(DIM, np.zeros(2 * DIM, np.float32), rows)


def test_a_file_of_another_format_is_removed_by_a_deletion(made, tmp_path: Path):
    path = made(KINDS[0], tmp_path)
    codes_of(path).write_bytes(b"other")
    forget_codes(codes_of(path), np.array([1]))
    assert not codes_of(path).exists()


def test_more_components_than_numbers_are_refused(tmp_path: Path):
    with pytest.raises(GalleryError, match="at most the width of the vectors, 24, got 25"):
        Gallery(tmp_path / "g", dim=DIM, index=RaBitQ(dim=25))
