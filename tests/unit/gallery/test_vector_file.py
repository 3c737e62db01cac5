"""The file of a gallery's vectors: writing, erasure, damage, and its database."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery import Gallery, RaBitQ
from finegrain.gallery.sqlite import (
    moving,
    positioned_file,
    vector_file,
    vector_source,
    vector_upkeep,
)
from finegrain.gallery.sqlite.files import next_vectors_of
from finegrain.gallery.sqlite.positioned_file import PositionedFile
from finegrain.gallery.sqlite.vector_file import VectorFile
from finegrain.index import codes, exact
from finegrain.index.block import FiledVectors
from tests.unit.gallery.damaging import (
    flip,
    flip_vector,
    place_of,
    stored_vector,
    vectors_file,
)

DIM = 16
BLOCK = 32
COUNT = 100
"""Three full blocks, and four rows."""


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_file, "BLOCK_ROWS", BLOCK)
    monkeypatch.setattr(exact, "BLOCK_ROWS", BLOCK)
    monkeypatch.setattr(codes, "least_rows", lambda: 8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(unit(COUNT), [f"{i}.jpg" for i in range(COUNT)])
    return tmp_path / "g"


@pytest.fixture
def gallery(path: Path) -> Iterator[Gallery]:
    with Gallery(path) as opened:
        yield opened


def best(gallery: Gallery, query: np.ndarray, k: int = 5) -> list[int]:
    return [hit.id for hit in gallery.search(query[None], k)[0]]


def literal_best(query: np.ndarray, k: int = 5, without: frozenset[int] = frozenset()) -> list[int]:
    ids = np.array([id_ for id_ in range(1, COUNT + 1) if id_ not in without])
    scores = unit(COUNT)[ids - 1].astype(np.float64) @ query.astype(np.float64)
    return ids[np.lexsort((ids, -scores.astype(np.float32)))][:k].tolist()


def check_search(gallery: Gallery, without: frozenset[int] = frozenset()) -> None:
    for query in unit(8, seed=1):
        assert best(gallery, query) == literal_best(query, without=without)


# --- opening ----------------------------------------------------------------------------


def test_opening_reads_only_the_vectors_of_the_last_block(path: Path, monkeypatch):
    read: list[int] = []
    original = VectorFile.vectors

    def counting(file: VectorFile, slots: np.ndarray) -> np.ndarray:
        read.extend(slots.tolist())
        return original(file, slots)

    monkeypatch.setattr(VectorFile, "vectors", counting)
    with Gallery(path) as gallery:
        index = gallery._store._follower.index()  # type: ignore[union-attr]
        assert sorted(read) == [96, 97, 98, 99]
        assert [type(block.vectors) for block in index._blocks[:3]] == [FiledVectors] * 3
        check_search(gallery)


def test_vectors_in_memory_are_read_once(path: Path, monkeypatch):
    with Gallery(path, memory="vectors") as gallery:
        check_search(gallery)
        with Gallery(path) as other:
            other.delete([3, 40])
            other.add(unit(BLOCK, seed=9), [None] * BLOCK)
        gone = frozenset({3, 40})
        assert 101 in best(gallery, unit(1, seed=9)[0])
        monkeypatch.setattr(VectorFile, "vectors", None)  # no vector is read from the file
        for query in unit(8, seed=1):
            hits = [id_ for id_ in best(gallery, query, 3 * COUNT) if id_ <= COUNT]
            assert hits == literal_best(query, COUNT, gone)
            (filtered,) = gallery.search(query[None], 3, where="id in (5, 7, 9, 40)")
            assert {hit.id for hit in filtered} == {5, 7, 9}


def test_a_block_in_memory_that_lost_rows_keeps_the_others(path: Path):
    with Gallery(path, memory="vectors") as gallery:
        gone = frozenset(range(3, 97))
        gallery.delete(gone)
        best(gallery, unit(1)[0])
        for number in range(BLOCK):  # small blocks are joined, and become a full one of the file
            gallery.add(unit(1, seed=100 + number), [None])
            assert set(best(gallery, unit(1)[0], COUNT)) == {
                id_ for id_ in range(1, COUNT + number + 2) if id_ not in gone
            }


def test_a_damaged_vector_is_left_out_of_memory(path: Path):
    flip_vector(path, 40)
    with Gallery(path, memory="vectors") as gallery:
        with pytest.warns(GalleryWarning, match="the vector of picture 41 is damaged"):
            best(gallery, unit(1)[0])
        check_search(gallery, frozenset({41}))


@pytest.mark.parametrize("options", [{"memory": "disk"}, {"memory": "vectors", "index": RaBitQ()}])
def test_only_exact_search_keeps_vectors_in_memory_by_choice(tmp_path: Path, options):
    with pytest.raises(GalleryError, match="memory="):
        Gallery(tmp_path / "g", dim=DIM, **options)
    with pytest.raises(GalleryError, match="leave out memory="):
        Gallery("milvus:people.db", dim=DIM, memory="vectors")


def test_a_full_block_is_read_from_the_file(gallery: Gallery):
    query = unit(1, seed=1)[0]
    best(gallery, query)
    for number in range(BLOCK):
        gallery.add(unit(1, seed=number + 50), [None])
        assert len(best(gallery, query, 999)) == COUNT + number + 1
    index = gallery._store._follower.index()  # type: ignore[union-attr]
    filed = [len(block) for block in index._blocks if isinstance(block.vectors, FiledVectors)]
    assert filed == [BLOCK] * 4
    assert index.ids.tolist() == list(range(1, COUNT + BLOCK + 1))


def test_another_handle_reads_only_changes(gallery: Gallery, path: Path):
    check_search(gallery)
    with Gallery(path) as other:
        other.delete([3, 40, 99])
        other.add(unit(1, seed=9), [None])
    gone = frozenset({3, 40, 99})
    blocks = gallery._store._follower._index._blocks  # type: ignore[union-attr]
    assert 101 in best(gallery, unit(1, seed=9)[0])
    after = gallery._store._follower._index._blocks  # type: ignore[union-attr]
    assert blocks[2] is after[2]  # none of its vectors was deleted
    for query in unit(8, seed=1):
        assert [id_ for id_ in best(gallery, query, 9) if id_ != 101][:5] == literal_best(
            query, without=gone
        )


# --- deletion ---------------------------------------------------------------------------


def test_a_deletion_leaves_no_byte_of_a_slot(gallery: Gallery, path: Path):
    file = vectors_file(path)
    size = file.stat().st_size
    gallery.delete([7, 50, 99])
    assert file.stat().st_size == size
    opened = VectorFile(file, writable=False)
    for slot in (6, 49, 98):
        block, row = divmod(slot, BLOCK)
        assert opened.ids(block)[row] == -(slot + 1)
        assert opened.checksums(block)[row] == 0
        if block < COUNT // BLOCK:
            assert not opened._read(block, "levels")[row].any()
        assert not stored_vector(path, slot).any()
    assert all(stored_vector(path, slot).any() for slot in (5, 7, 48, 50, 97, 99))
    assert opened.damaged_codes(0) == opened.damaged_codes(1) == []
    assert gallery.check().is_valid
    check_search(gallery, frozenset({7, 50, 99}))


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 5, 8])
def test_an_interrupted_deletion_continues_at_the_next_opening(
    gallery: Gallery, path: Path, monkeypatch, writes: int
):
    original, count = PositionedFile.write, []

    def killed(file: PositionedFile, at: int, data: np.ndarray) -> None:
        if len(count) == writes:
            raise KeyboardInterrupt
        count.append(at)
        original(file, at, data)

    with monkeypatch.context() as patch:
        patch.setattr(PositionedFile, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            gallery.delete([7, 8, 50])
    gallery.close()
    with Gallery(path) as again:
        assert again.check().is_valid
        assert not any(stored_vector(path, slot).any() for slot in (6, 7, 49))
        check_search(again, frozenset({7, 8, 50}))
        assert again.add(unit(1, seed=5), [None]) == [COUNT + 1]


def test_a_vector_is_kept_while_an_older_snapshot_is_read(
    gallery: Gallery, path: Path, monkeypatch
):
    monkeypatch.setattr("finegrain.gallery.sqlite.store.ERASE_SECONDS", 0.05)
    gallery.add(unit(1, seed=5), [None])
    with Gallery(path) as other:
        store = other._store
        with store.reading():  # type: ignore[union-attr]
            with pytest.warns(GalleryWarning, match="another process still reads"):
                gallery.delete([7])
            assert (store.vectors([7])[7] == unit(COUNT)[6]).all()
        gallery._store.tidy()  # type: ignore[union-attr]
        assert store.vectors([7]) == {}
    assert not stored_vector(path, 6).any()


@pytest.mark.parametrize("few", [0, 64])
def test_an_outdated_index_leaves_out_overwritten_vectors(
    gallery: Gallery, path: Path, monkeypatch, few: int
):
    monkeypatch.setattr("finegrain.gallery.sqlite.vector_source._FEW", few)
    index = gallery._store._follower.index()  # type: ignore[union-attr]
    index.search(unit(1), COUNT)  # computes all checksums
    with Gallery(path) as other:
        other.delete([7, 50])
    query = unit(COUNT)[6]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hits = [hit.id for hit in index.search(query[None], 5)[0]]
    assert hits == literal_best(query, without=frozenset({7, 50}))
    assert gallery.damaged() == frozenset()


# --- undone additions ---------------------------------------------------------------------


@pytest.mark.parametrize("then", ["add", "open"])
def test_vectors_of_an_undone_addition_are_overwritten(
    gallery: Gallery, path: Path, monkeypatch, then: str
):
    def killed(_: object) -> None:
        raise KeyboardInterrupt

    lost = unit(60, seed=3)
    with monkeypatch.context() as patch:
        patch.setattr(VectorFile, "sync", killed)
        with pytest.raises(KeyboardInterrupt):
            gallery.add(lost, [None] * 60)
    assert lost[50].tobytes() in vectors_file(path).read_bytes()
    if then == "add":
        assert gallery.add(unit(2, seed=4), [None] * 2) == [101, 102]
    gallery.close()
    with Gallery(path) as again:
        assert len(again) == (102 if then == "add" else 100)
        assert again.check().is_valid
        data = vectors_file(path).read_bytes()
        assert not any(vector.tobytes() in data for vector in lost)
        check_search(again) if then == "open" else None


# --- mismatched files ---------------------------------------------------------------------


def test_the_error_of_a_copied_database_names_the_missing_file(path: Path, tmp_path: Path):
    shutil.copy(path, tmp_path / "copy")
    with pytest.raises(GalleryError, match=r"copy\.vectors.* is missing.*gallery backup FILE COPY"):
        Gallery(tmp_path / "copy")
    shutil.copy(vectors_file(path), tmp_path / "copy.vectors")
    with Gallery(tmp_path / "copy") as copy:
        check_search(copy)


def test_the_vectors_of_another_gallery_are_refused(path: Path, tmp_path: Path):
    with Gallery(tmp_path / "other", dim=DIM) as other:
        other.add(unit(COUNT), [None] * COUNT)
    shutil.copy(tmp_path / "other.vectors", vectors_file(path))
    with pytest.raises(GalleryError, match="holds the vectors of another gallery"):
        Gallery(path)


@pytest.mark.parametrize("size", [0, 10, 4096, 9000])
def test_a_truncated_file_is_refused(path: Path, size: int):
    file = vectors_file(path)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(GalleryError, match=r"ends early|not a file of vectors"):
        Gallery(path)


@pytest.mark.parametrize("at", [0, 17, 21, 25, 30, 60])
def test_a_damaged_header_is_refused(path: Path, at: int):
    flip(path, at)
    with pytest.raises(GalleryError, match="its header is damaged"):
        Gallery(path)


def test_another_format_is_refused(path: Path, monkeypatch):
    monkeypatch.setattr(vector_file, "FORMAT_VERSION", 9)
    with pytest.raises(GalleryError, match="has format 1; this finegrain reads format 9"):
        Gallery(path)


def test_vectors_of_an_earlier_moment_are_refused(path: Path):
    early = vectors_file(path).read_bytes()
    with Gallery(path) as gallery:
        gallery.add(unit(20, seed=4), [None] * 20)
    vectors_file(path).write_bytes(early)
    with pytest.raises(GalleryError, match=r"not of the same moment: 20 of 120|ends early"):
        Gallery(path)


def test_vectors_of_another_history_are_refused(path: Path, tmp_path: Path):
    """The same ids with other vectors, as after the database alone was restored."""
    for name in ("g", "g.vectors"):
        shutil.copy(tmp_path / name, tmp_path / f"saved-{name}")
    with Gallery(path) as gallery:
        gallery.add(unit(20, seed=4), [None] * 20)
    late = vectors_file(path).read_bytes()
    for name in ("g", "g.vectors"):
        shutil.copy(tmp_path / f"saved-{name}", tmp_path / name)
    with Gallery(path) as gallery:
        gallery.add(unit(20, seed=5), [None] * 20)
    vectors_file(path).write_bytes(late)
    with pytest.raises(GalleryError, match="not of the same moment: 20 of 120"):
        Gallery(path)


@pytest.mark.parametrize("num_added", [1, 3])
def test_vectors_from_before_an_addition_are_refused(path: Path, num_added: int):
    early = vectors_file(path).read_bytes()
    with Gallery(path) as gallery:
        gallery.add(unit(num_added, seed=4), [None] * num_added)
    vectors_file(path).write_bytes(early)
    with pytest.raises(GalleryError, match="ends early"):
        Gallery(path)


def test_a_database_from_before_an_addition_opens_at_its_moment(path: Path):
    early = path.read_bytes()
    added = unit(3, seed=4)
    with Gallery(path) as gallery:
        gallery.add(added, [None] * 3)
    path.write_bytes(early)
    with Gallery(path) as gallery:
        assert len(gallery) == COUNT
        check_search(gallery)
        assert gallery.check().is_valid
        data = vectors_file(path).read_bytes()
        assert not any(vector.tobytes() in data for vector in added)


@pytest.mark.parametrize("num_deleted", [3, 20])
def test_a_database_from_before_a_deletion_lacks_vectors(path: Path, num_deleted: int):
    early = path.read_bytes()
    gone = frozenset(range(11, 11 + num_deleted))
    with Gallery(path) as gallery:
        gallery.delete(gone)
    path.write_bytes(early)
    if num_deleted > vector_upkeep.TOLERATED:
        with pytest.raises(GalleryError, match="not of the same moment: 20 of 100"):
            Gallery(path)
        return
    with pytest.warns(GalleryWarning, match="the vector of pictures 11, 12, 13 is damaged"):
        gallery = Gallery(path)
    with gallery:
        assert gallery.damaged() == gone
        check_search(gallery, gone)


def test_either_file_of_a_backup_alone_is_refused(gallery: Gallery, path: Path, tmp_path: Path):
    gallery.backup(tmp_path / "copy")
    gallery.close()
    shutil.copy(tmp_path / "copy.vectors", vectors_file(path))
    with pytest.raises(GalleryError, match="holds the vectors of another gallery"):
        Gallery(path)


def test_deleted_vectors_of_a_restored_file_are_erased_again(path: Path):
    early = vectors_file(path).read_bytes()
    with Gallery(path) as gallery:
        gallery.delete([7, 50])
    vectors_file(path).write_bytes(early)
    for _ in range(2):
        with Gallery(path) as gallery:
            assert not stored_vector(path, 6).any()
            assert not stored_vector(path, 49).any()
            assert gallery.check().is_valid
            check_search(gallery, frozenset({7, 50}))


def test_a_new_gallery_beside_vectors_of_another_is_refused(path: Path):
    path.unlink()
    with pytest.raises(GalleryError, match=r"but the vectors of one.*Move the gallery back"):
        Gallery(path, dim=DIM)
    assert not path.exists()


def test_additions_to_a_replaced_file_are_refused(gallery: Gallery, path: Path):
    vectors_file(path).rename(path.with_name("away"))
    with pytest.raises(GalleryError, match="was removed, or replaced by another file"):
        gallery.add(unit(1), [None])
    path.with_name("away").rename(vectors_file(path))
    assert gallery.add(unit(1), [None]) == [COUNT + 1]


# --- damage -----------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [6, 98])
def test_a_vector_with_a_flipped_byte_is_named_and_the_others_are_searched(path: Path, slot: int):
    flip_vector(path, slot, byte=9)
    with Gallery(path) as gallery:
        with pytest.warns(GalleryWarning, match=f"the vector of picture {slot + 1} is damaged"):
            assert best(gallery, unit(COUNT)[slot]) == literal_best(
                unit(COUNT)[slot], without=frozenset({slot + 1})
            )
        assert gallery.damaged() == {slot + 1}
        check_search(gallery, frozenset({slot + 1}))
        assert any(
            f"vector of picture {slot + 1} does not agree" in f for f in gallery.check().faults
        )


@pytest.mark.parametrize("name", ["levels", "grid", "groups", "grid_checksum"])
def test_damaged_codes_are_computed_again_from_the_vectors(path: Path, name: str):
    flip(path, place_of(path, 40, "levels") if name == "levels" else block_place(path, 1, name))
    with Gallery(path) as gallery:
        check_search(gallery)
        assert gallery.damaged() == frozenset()
        assert any(
            "codes of the vectors of pictures 33 to 64 are damaged" in fault
            for fault in gallery.check().faults
        )


def block_place(path: Path, block: int, name: str) -> int:
    return VectorFile(vectors_file(path), writable=False)._at(block, name, 0)


def test_a_vector_that_the_disk_does_not_return_is_named(gallery: Gallery, path: Path, monkeypatch):
    at = place_of(path, 40)
    original = PositionedFile.read_into

    def failing(file: PositionedFile, start: int, array: np.ndarray) -> None:
        if start <= at < start + array.nbytes:
            raise OSError("Input/output error")
        original(file, start, array)

    check_search(gallery)
    monkeypatch.setattr(PositionedFile, "read_into", failing)
    with pytest.warns(GalleryWarning, match="the vector of picture 41 is damaged"):
        best(gallery, unit(COUNT)[40], COUNT)
    check_search(gallery, frozenset({41}))


def test_a_system_without_positioned_reads_uses_the_file(path: Path, monkeypatch):
    monkeypatch.setattr(positioned_file, "_process_vm_readv", lambda: None)
    for name in ("preadv", "pwrite", "fdatasync"):
        monkeypatch.delattr(f"os.{name}", raising=False)
    with Gallery(path) as gallery:
        check_search(gallery)
        gallery.add(unit(COUNT, seed=4), [None] * COUNT)
        gallery.delete(range(COUNT + 1, 2 * COUNT + 1))
        check_search(gallery)
        assert gallery.check().is_valid


def test_the_checksum_of_a_vector_is_computed_once_in_large_reads(gallery: Gallery, monkeypatch):
    counts: list[int] = []
    original = vector_source.checksums_of

    def counting(rows: np.ndarray) -> np.ndarray:
        counts.append(len(rows))
        return original(rows)

    monkeypatch.setattr(vector_source, "checksums_of", counting)
    monkeypatch.setattr(vector_source, "_FEW", 0)
    index = gallery._store._follower.index()  # type: ignore[union-attr]
    counts.clear()
    first = index.search(unit(1, seed=1), COUNT)
    assert sum(counts) == COUNT // BLOCK * BLOCK
    counts.clear()
    assert index.search(unit(1, seed=1), COUNT) == first
    assert sum(counts) == 0


# --- several files at once ----------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_interrupted_backup_leaves_the_old_or_the_new_gallery(
    gallery: Gallery, path: Path, tmp_path: Path, monkeypatch, step: int
):
    target = tmp_path / "copy"
    gallery.backup(target)
    gallery.delete([7])
    calls: list[int] = []

    def killed(_unfinished: Path, _target: Path) -> None:
        if len(calls) == step:
            raise KeyboardInterrupt
        calls.append(1)
        publish_over(_unfinished, _target)

    from finegrain.gallery.sqlite.files import publish_over

    with monkeypatch.context() as patch:
        patch.setattr("finegrain.gallery.sqlite.backup.publish_over", killed)
        with pytest.raises(KeyboardInterrupt):
            gallery.backup(target, overwrite=True)
    with Gallery(target) as copy:
        assert copy.check().is_valid
        check_search(copy, frozenset({7}) if step == 2 else frozenset())
    assert not next_vectors_of(target).exists()


def test_a_new_file_is_renamed_at_the_next_opening(path: Path):
    """As after a process was killed between the commit of a reindexing and the rename."""
    vectors_file(path).rename(next_vectors_of(path))
    with Gallery(path) as gallery:
        check_search(gallery)
        assert vectors_file(path).exists()
        assert not next_vectors_of(path).exists()


def test_the_new_file_of_an_undone_reindexing_is_removed(path: Path):
    shutil.copy(vectors_file(path), next_vectors_of(path))
    flip_header = next_vectors_of(path).read_bytes()
    next_vectors_of(path).write_bytes(flip_header[:40] + b"f" + flip_header[41:])
    with Gallery(path) as gallery:
        assert not next_vectors_of(path).exists()
        check_search(gallery)


# --- compaction ---------------------------------------------------------------------------


def test_a_compaction_removes_the_places_of_deleted_pictures(gallery: Gallery, path: Path):
    file = vectors_file(path)
    size = file.stat().st_size
    gone = frozenset(range(10, 75))
    with Gallery(path) as other:
        check_search(other)
        gallery.delete(gone)
        gallery.compact()
        assert file.stat().st_size < size - 5000
        for opened in (gallery, other):  # the other has not followed the deletion yet
            check_search(opened, gone)
        assert other.add(unit(1, seed=5), [None]) == [COUNT + 1]
        assert len(best(gallery, unit(1)[0], 999)) == COUNT + 1 - len(gone)
        assert gallery.check().is_valid
    assert not next_vectors_of(path).exists()


def test_an_approximate_index_follows_a_compaction(path: Path):
    gone = frozenset(range(10, 75))
    with Gallery(path, index=RaBitQ()) as approximate, Gallery(path) as other:
        check_search(approximate)
        other.delete(gone)
        other.compact()
        check_search(approximate, gone)


def test_a_compaction_that_was_cut_off_changes_nothing(gallery: Gallery, path: Path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("finegrain.gallery.sqlite.vector_upkeep.sync_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            gallery.compact()
    assert next_vectors_of(path).exists()
    gallery.close()
    with Gallery(path) as again:
        assert not next_vectors_of(path).exists()
        check_search(again)
        assert again.check().is_valid


def test_opening_compacts_a_file_that_is_mostly_deleted(gallery: Gallery, path: Path):
    size = vectors_file(path).stat().st_size
    gone = frozenset(range(10, 75))
    gallery.delete(gone)
    gallery.close()
    with Gallery(path) as again:
        assert vectors_file(path).stat().st_size < size - 5000
        check_search(again, gone)


def test_a_compaction_keeps_the_name_of_what_is_damaged(path: Path):
    flip_vector(path, 6)
    with Gallery(path) as gallery:
        gallery.compact()
        with pytest.warns(GalleryWarning, match="the vector of picture 7 is damaged"):
            best(gallery, unit(COUNT)[6], COUNT)


# --- vectors of an older format ------------------------------------------------------------

FORMAT_4 = Path(__file__).parents[2] / "fixtures" / "galleries" / "format4.gallery.gz"


def old_gallery(folder: Path) -> tuple[Path, dict[int, bytes]]:
    """A gallery of the previous format, and its vectors."""
    path = folder / "old"
    path.write_bytes(gzip.decompress(FORMAT_4.read_bytes()))
    connection = sqlite3.connect(path)
    vectors = dict(connection.execute("SELECT picture, data FROM vector"))
    connection.close()
    return path, vectors


def check_moved(path: Path, vectors: dict[int, bytes]) -> None:
    with Gallery(path) as gallery:
        moved = gallery._store.vectors(vectors)
        assert {id_: vector.tobytes() for id_, vector in moved.items()} == vectors
        assert gallery.check().is_valid
        gallery.delete(list(vectors)[:2])
        data = path.read_bytes() + vectors_file(path).read_bytes()
        assert not any(vectors[id_] in data for id_ in list(vectors)[:2])
    connection = sqlite3.connect(path)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    assert "vector" not in names
    connection.close()


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_an_interrupted_move_is_continued(tmp_path: Path, monkeypatch, batches: int):
    path, vectors = old_gallery(tmp_path)
    monkeypatch.setattr(moving, "_CHUNK_ROWS", 5)
    calls: list[int] = []

    def killed(*arguments) -> None:
        moving.move_some(*arguments)
        if len(calls) == batches:
            raise KeyboardInterrupt
        calls.append(1)

    with monkeypatch.context() as patch:
        patch.setattr("finegrain.gallery.sqlite.store.move_some", killed)
        with pytest.raises(KeyboardInterrupt):
            Gallery(path)
    check_moved(path, vectors)


def test_damage_in_an_older_format_is_still_reported(tmp_path: Path):
    path, vectors = old_gallery(tmp_path)
    first, second, *_ = vectors
    connection = sqlite3.connect(path)
    connection.execute("UPDATE vector SET data = x'00' WHERE picture = ?", (first,))
    connection.execute("DELETE FROM vector WHERE picture = ?", (second,))
    connection.commit()
    connection.close()
    for _ in range(2):
        with Gallery(path) as gallery:
            with pytest.warns(GalleryWarning, match=f"the vector of pictures {first}, {second} is"):
                gallery.search(np.eye(1, gallery.dim), 3)
            assert gallery.damaged() == {first, second}
            assert not gallery.check().is_valid


def test_a_reindexing_gives_the_gallery_a_new_file(gallery: Gallery, path: Path):
    before = VectorFile(vectors_file(path), writable=False).identity
    store = gallery._store
    new = unit(COUNT, seed=8)[:, :5]
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    with store.switching() as connection:  # type: ignore[union-attr]
        checksums = vector_file.checksums_of(new)
        rows = (np.arange(1, COUNT + 1), checksums, new)
        store.replace_vectors(connection, 5, [rows])  # type: ignore[union-attr]
        connection.execute("UPDATE gallery SET fingerprint = 'new', dim = 5")
    assert VectorFile(vectors_file(path), writable=False).identity != before
    assert not next_vectors_of(path).exists()
    assert gallery.dim == 5
    assert [hits[0].id for hits in gallery.search(new[::9], 1)] == list(range(1, COUNT + 1, 9))
    assert gallery.check().is_valid
    assert unit(COUNT)[4].tobytes() not in vectors_file(path).read_bytes()
