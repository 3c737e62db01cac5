"""Repair of the file of vectors: damaged ids and checksums, codes, and files that were replaced."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite import schema, vector_file
from finegrain.gallery.sqlite.comparison import Slots, compare
from finegrain.gallery.sqlite.vector_file import VectorFile, checksums_of
from finegrain.index import codes, exact
from tests.unit.gallery.damaging import (
    flip,
    flip_vector,
    overwrite,
    overwrite_vector,
    place_of,
    vectors_file,
)

DIM = 16
BLOCK = 32
COUNT = 100
"""Three full blocks, and four rows."""


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_file, "BLOCK_ROWS", BLOCK)
        patch.setattr(exact, "BLOCK_ROWS", BLOCK)
        patch.setattr(codes, "least_rows", lambda: 8)
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, _small_blocks: None) -> Path:
    path = tmp_path_factory.mktemp("template") / "g"
    with Gallery(path, dim=DIM) as gallery:
        gallery.add(unit(COUNT), [f"{i}.jpg" for i in range(COUNT)])
        gallery.delete([10, 65, 66])
    return path


GONE = {10, 65, 66}


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    shutil.copy(template, tmp_path / "g")
    shutil.copy(vectors_file(template), tmp_path / "g.vectors")
    return tmp_path / "g"


def intact(gallery: Gallery) -> set[int]:
    """Ids whose vectors are served, each by a search and by its id."""
    by_id = gallery._store.vectors(range(1, COUNT + 1))
    assert all((vector == unit(COUNT)[id_ - 1]).all() for id_, vector in by_id.items())
    every = [hit.id for hit in gallery.search(unit(1), COUNT)[0]]
    assert sorted(every) == sorted(by_id)
    best = gallery.search(unit(COUNT), 1)
    assert all(best[id_ - 1][0].id == id_ for id_ in by_id)
    return set(by_id)


def present(*without: int) -> set[int]:
    return set(range(1, COUNT + 1)) - GONE - set(without)


def stored_ids(path: Path) -> list[int]:
    file = VectorFile(vectors_file(path), writable=False)
    return [int(id_) for id_ in file.ids_at(np.arange(COUNT))]


def harm_id(path: Path, slot: int, byte: int, mask: int = 0x40) -> None:
    flip(path, place_of(path, slot, "ids") + byte, mask)


# --- ids and checksums ---------------------------------------------------------------------


@pytest.mark.parametrize(("byte", "mask"), [(0, 0x40), (7, 0x80)])
@pytest.mark.parametrize("slot", [0, 32, 96, 99])
def test_a_damaged_id_is_repaired_at_opening(path: Path, slot: int, byte: int, mask: int):
    before = stored_ids(path)
    harm_id(path, slot, byte, mask)
    with pytest.warns(GalleryWarning, match=f"of the vectors of picture {slot + 1} were damaged"):
        gallery = Gallery(path)
    with gallery:
        assert intact(gallery) == present()
        assert not gallery.damaged()
        assert gallery.check().is_valid
    assert stored_ids(path) == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Gallery(path).close()


def harm_all_ids(path: Path) -> None:
    overwrite(vectors_file(path), place_of(path, 96, "ids"), bytes(4 * 8))


def harm_checksums(path: Path) -> None:
    overwrite(vectors_file(path), place_of(path, 32, "checksums"), b"\xff" * 4 * BLOCK)


def harm_deleted_id(path: Path) -> None:
    harm_id(path, 64, byte=0)  # the first of its block


def swap_ids(path: Path) -> None:
    data = vectors_file(path).read_bytes()
    at = place_of(path, 40, "ids")
    overwrite(vectors_file(path), at, data[at + 8 : at + 16] + data[at : at + 8])


def repeat_ids(path: Path) -> None:
    data = vectors_file(path).read_bytes()
    overwrite(
        vectors_file(path),
        place_of(path, 0, "ids"),
        data[place_of(path, 32, "ids") :][: 8 * 8],
    )


@pytest.mark.parametrize(
    "harm", [harm_all_ids, harm_checksums, harm_deleted_id, swap_ids, repeat_ids]
)
def test_many_damaged_ids_and_checksums_are_repaired(path: Path, harm: Callable[[Path], None]):
    harm(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gallery = Gallery(path)
    with gallery:
        assert intact(gallery) == present()
        assert gallery.check().is_valid
    assert {id_ for id_ in stored_ids(path) if id_ > 0} == present()


@pytest.mark.parametrize("slot", [32, 64, 96])
def test_a_slot_that_is_lost_hides_only_its_picture(path: Path, slot: int):
    harm_id(path, slot, byte=6)
    flip_vector(path, slot, byte=5)
    flip(path, place_of(path, slot, "checksums"))
    without = {slot + 1} - GONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gallery = Gallery(path)
    with gallery:
        assert gallery.damaged() == without
        assert intact(gallery) == present(*without)
        named = [fault for fault in gallery.check().faults if "vector of picture" in fault]
        assert len(named) == len(without)


@pytest.mark.parametrize("slot", [40, 96])
def test_a_gallery_that_cannot_be_written_serves_all_intact_vectors(
    path: Path, monkeypatch: pytest.MonkeyPatch, slot: int
):
    monkeypatch.setattr(schema, "_writable", lambda _: False)
    harm_id(path, slot, byte=0)
    damaged = vectors_file(path).read_bytes()
    with Gallery(path) as gallery:
        assert intact(gallery) == present()
        report = gallery.check()
        assert f"id or checksum of picture {slot + 1} in g.vectors is damaged" in report.faults
        assert "finegrain gallery compact FILE" in str(report)
    assert vectors_file(path).read_bytes() == damaged


def test_damage_under_an_open_gallery_is_named_and_repaired_by_compact(path: Path):
    with Gallery(path) as gallery:
        harm_id(path, 98, byte=0)
        report = gallery.check()
        assert report.faults == ["id or checksum of picture 99 in g.vectors is damaged"]
        assert intact(gallery) == present()
        gallery.compact()
        assert gallery.check().is_valid
        assert intact(gallery) == present()


def test_random_damage_to_ids_and_checksums_loses_no_intact_vector(template: Path, tmp_path: Path):
    path = tmp_path / "g"
    for seed in range(8):
        shutil.copy(template, path)
        shutil.copy(vectors_file(template), vectors_file(path))
        random = np.random.default_rng(seed)
        for slot in random.choice(COUNT, 6, replace=False).tolist():
            name = ["ids", "checksums"][int(random.integers(2))]
            byte = int(random.integers(8 if name == "ids" else 4))
            flip(path, place_of(path, slot, name) + byte, 1 << int(random.integers(8)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gallery = Gallery(path)
        with gallery:
            assert intact(gallery) == present(), seed
            gallery.delete(range(1, COUNT + 1))
        data = vectors_file(path).read_bytes()
        assert not any(vector.tobytes() in data for vector in unit(COUNT)), seed


# --- deletion ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slot", "also"), [(0, ""), (0, "vectors"), (40, "checksums"), (96, ""), (99, "vectors")]
)
def test_a_deletion_overwrites_a_vector_whose_id_is_damaged(path: Path, slot: int, also: str):
    with Gallery(path) as gallery:
        assert intact(gallery) == present()
        harm_id(path, slot, byte=1)
        if also:
            flip(path, place_of(path, slot, also))
        assert gallery.delete([slot + 1]) == 1
        data = vectors_file(path).read_bytes()
        assert unit(COUNT)[slot].tobytes()[4:] not in data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert intact(gallery) == present(slot + 1)
    with Gallery(path) as again:
        assert again.check().is_valid
        assert intact(again) == present(slot + 1)


def test_a_deletion_does_not_hide_damage_to_codes(path: Path):
    query = unit(COUNT)[50]
    for byte in range(DIM):  # the codes of picture 51 become those of a distant vector
        flip(path, place_of(path, 50, "levels") + byte, 0x7F)
    with Gallery(path) as gallery:
        gallery.delete([40])
    with Gallery(path) as gallery:
        assert gallery.search(query[None], 1)[0][0].id == 51
        assert gallery.check().is_valid  # the codes were made again


def test_compacting_makes_damaged_codes_again(path: Path):
    flip(path, place_of(path, 50, "levels"))
    with Gallery(path) as gallery:
        report = gallery.check()
        assert not report.is_valid
        assert "finegrain gallery compact FILE" in str(report)
        assert "finegrain index" not in str(report)
        gallery.compact()
        assert gallery.check().is_valid


# --- a file that is not in its place --------------------------------------------------------


def remove(file: Path) -> None:
    file.unlink()


def replace_by_an_equal_one(file: Path) -> None:
    shutil.copy(file, file.with_name("copy"))
    file.with_name("copy").replace(file)


def overwrite_by_another(file: Path) -> None:
    with Gallery(file.with_name("other"), dim=DIM) as other:
        other.add(unit(COUNT), [None] * COUNT)
    file.write_bytes(file.with_name("other.vectors").read_bytes())


CHANGES: dict[str, Callable[[Gallery], object]] = {
    "add": lambda gallery: gallery.add(unit(1), [None]),
    "delete": lambda gallery: gallery.delete([1]),
    "update": lambda gallery: gallery.update([1], {"a": 1}),
    "compact": lambda gallery: gallery.compact(),
    "expire": lambda gallery: gallery.expire(),
}


@pytest.mark.parametrize(
    ("change", "away"),
    [
        *((change, remove) for change in CHANGES),
        ("delete", replace_by_an_equal_one),
        ("delete", overwrite_by_another),
    ],
)
def test_no_change_is_made_beside_a_file_that_was_removed_or_replaced(
    path: Path, change: str, away: Callable[[Path], None]
):
    file = vectors_file(path)
    saved = file.with_name("saved")
    with Gallery(path) as gallery:
        saved.hardlink_to(file)
        shutil.copy(file, file.with_name("content"))
        away(file)
        with pytest.raises(GalleryError, match=r"g\.vectors was removed, or replaced"):
            CHANGES[change](gallery)
        report = gallery.check()
        assert "g.vectors was removed, or replaced by another file" in report.faults
        assert "Restore the gallery from a backup" in str(report)
        saved.write_bytes(file.with_name("content").read_bytes())
        saved.replace(file)
        assert len(gallery) == COUNT - len(GONE)
        CHANGES[change](gallery)
        assert gallery.check().is_valid


def test_a_copied_vector_is_not_taken_for_another_picture(path: Path):
    """A vector over another one: the copy is refused, and the original is still served."""
    overwrite_vector(path, 40, unit(COUNT)[20])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Gallery(path) as gallery:
            assert intact(gallery) == present(41)
            assert (checksums_of(gallery._store.vectors([21])[21][None]) != 0).all()


def test_comparing_many_slots_reads_each_once():
    """A comparison whose cost grew with the square of the slots would not end."""
    count = 200_000
    ids = np.arange(1, count + 1)
    checksums = np.random.default_rng(0).integers(1, 2**32, count).astype(np.uint32)
    pictures = dict(zip(ids.tolist(), checksums.tolist(), strict=True))
    damaged = ids.copy()
    damaged[[500, count - 3]] = [1 << 40, -7]
    read: list[int] = []

    def checksums_of(slots: np.ndarray) -> np.ndarray:
        read.extend(slots.tolist())
        return checksums[slots]

    comparison = compare(Slots(damaged, checksums), pictures, {}, checksums_of)
    assert comparison.recovered == [501, count - 2]
    assert comparison.missing == []
    assert read == [500, count - 3]


def test_vectors_that_an_older_moment_brings_back_are_erased_by_the_next_write(path: Path):
    erased = unit(COUNT)[19].tobytes()
    with Gallery(path) as gallery:
        before = vectors_file(path).read_bytes()
        gallery.delete([20])
        assert erased not in vectors_file(path).read_bytes()
        time.sleep(0.02)  # the clock of a file system has ticks
        overwrite_file(vectors_file(path), before)
        assert erased in vectors_file(path).read_bytes()
        new = gallery.add(unit(1, seed=5), ["new.jpg"])
        assert erased not in vectors_file(path).read_bytes()
        assert [hit.id for hit in gallery.search(unit(1, seed=5), 1)[0]] == new
        gallery.delete(new)
        assert intact(gallery) == set(range(1, COUNT + 1)) - GONE - {20}


def test_a_write_to_vectors_of_another_moment_is_refused(path: Path):
    with Gallery(path) as gallery:
        gallery.update([1], {"shelf": "new"})
        data = bytearray(vectors_file(path).read_bytes())
        data[4096:] = bytes(len(data) - 4096)
        time.sleep(0.02)
        overwrite_file(vectors_file(path), bytes(data))
        with pytest.raises(GalleryError, match="not of the same moment"):
            gallery.add(unit(1, seed=5), ["new.jpg"])
        assert len(gallery) == COUNT - len(GONE)


def test_another_process_may_write_between_two_writes(path: Path):
    with Gallery(path) as gallery, Gallery(path) as other:
        for number in range(3):
            (own,) = gallery.add(unit(1, seed=number), [None])
            other.delete([own])
        assert intact(gallery) == set(range(1, COUNT + 1)) - GONE


def overwrite_file(path: Path, data: bytes) -> None:
    """Write over a file in place, as a copy by another program does."""
    with path.open("r+b") as file:
        file.write(data)
