from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import FilterError, GalleryError, GalleryWarning, QueryError
from finegrain.gallery import Gallery, Hit
from finegrain.gallery.row import Entry
from finegrain.gallery.sqlite.migrations import SCHEMA_VERSION
from finegrain.gallery.sqlite.schema import APPLICATION_ID
from tests.unit.gallery.damaging import flip_vector, overwrite_vector

DIM = 8
JPEG = b"\xff\xd8\xff" + b"thumbnail"


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "crops.gallery"


@pytest.fixture
def gallery(path: Path):
    with Gallery(path, fingerprint="plan-a", dim=DIM) as opened:
        yield opened


def fill(gallery: Gallery, count: int = 6) -> list[int]:
    return gallery.add(
        unit(count),
        [f"crops/{i}.jpg" for i in range(count)],
        pids=range(100, 100 + count),
        cameras=[f"gate-{i % 2}" for i in range(count)],
        metadata=[{"price": i * 1.5, "sale": i % 3 == 0, "size": None} for i in range(count)],
    )


# --- adding and reading -----------------------------------------------------------------


def test_rows_are_read_back_as_they_were_added(gallery: Gallery):
    ids = fill(gallery)
    assert ids == [1, 2, 3, 4, 5, 6]
    row = gallery.rows([2])[0]
    assert (row.id, row.image, row.pid, row.camera) == (2, "crops/1.jpg", 101, "gate-1")
    assert row.metadata == {"price": 1.5, "sale": False, "size": None}
    assert row.metadata["sale"] is False
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row.added_at)
    assert (row.time, row.track, row.expires_at) == (None, None, None)
    assert [row.id for row in gallery.rows([5, 99, 1, 5])] == [5, 1, 5]


def test_a_gallery_behaves_like_a_collection_of_ids(gallery: Gallery, path: Path):
    fill(gallery)
    assert len(gallery) == 6
    assert list(gallery) == [1, 2, 3, 4, 5, 6]
    assert 3 in gallery
    assert 7 not in gallery
    assert "3" not in gallery
    assert gallery.images() == {f"crops/{i}.jpg" for i in range(6)}
    assert gallery.known(["crops/5.jpg", "crops/6.jpg"]) == {"crops/5.jpg"}
    assert repr(gallery) == f"Gallery({str(path)!r}, 6 pictures, dim=8)"
    assert gallery.columns() == {
        "id": "number",
        "image": "text",
        "pid": "number or text",
        "camera": "text",
        "time": "time",
        "track": "text",
        "added_at": "time",
        "expires_at": "time",
        "price": "number",
        "sale": "boolean",
        "size": "null",
    }


def test_thumbnails_are_kept_for_pictures_without_a_file(gallery: Gallery):
    first, second = gallery.add(unit(2), [None, "a.jpg"], thumbnails=[JPEG, None])
    assert gallery.thumbnail(first) == JPEG
    assert gallery.thumbnail(second) is None
    assert gallery.images() == {"a.jpg"}


def test_adding_no_picture_changes_nothing(gallery: Gallery):
    assert gallery.add(np.empty((0, DIM), np.float32), []) == []
    assert len(gallery) == 0


def test_values_are_stored_exactly(gallery: Gallery, path: Path):
    fields = {"a": 0.1 + 0.2, "b": 2**63 - 1, "c": -(2**63), "d": "日本\0x", "e": 1e-308, "f": True}
    (id_,) = gallery.add(unit(1), ["x"], metadata=[fields], pids=[np.int64(-5)])
    with Gallery(path) as again:
        assert again.rows([id_])[0].metadata == fields
        assert again.rows([id_])[0].pid == -5
        assert type(again.rows([id_])[0].metadata["f"]) is bool


GOOD = {"vectors": unit(2), "images": ["a", "b"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": unit(2)[:, :4]}, r"shape \[N, 8\]; got float32 of shape \[2, 4\]"),
        ({"vectors": unit(2)[0]}, r"shape \[8\]"),
        ({"vectors": "abc"}, "got 'abc'"),
        ({"vectors": np.zeros((2, DIM))}, "vector 0 has length 0"),
        ({"vectors": np.full((2, DIM), np.nan)}, "has length nan"),
        ({"vectors": np.full((2, DIM), 1e300)}, "has length inf"),
        ({"vectors": unit(2) * [[1], [2]]}, "vector 1 has length 2"),
        ({"images": ["a"]}, "images has one entry per vector"),
        ({"images": "ab"}, "got str"),
        ({"images": [1, "b"]}, r"images\[0\] is text"),
        ({"images": ["a", "\ud800"]}, "UTF-8"),
        ({"pids": [1, 2.0]}, r"pids\[1\]"),
        ({"pids": [True, 2]}, r"pids\[0\]"),
        ({"pids": [2**63, 2]}, "64 bits"),
        ({"cameras": ["a", "b", "c"]}, "cameras has one entry"),
        ({"cameras": ["a", 3.5]}, r"cameras\[1\]"),
        ({"metadata": [{}, {"camera": "x"}]}, "'camera' is a column of every gallery"),
        ({"metadata": [{}, {"": 1}]}, "1 to 256 characters"),
        ({"metadata": [{}, {3: 1}]}, "got 3"),
        ({"metadata": [{}, {"\ud800": 1}]}, "UTF-8"),
        ({"metadata": [{}, {"a": [1]}]}, r"metadata\[1\]\['a'\]"),
        ({"metadata": [{}, {"a": float("nan")}]}, "finite"),
        ({"metadata": [{}, {"a": 2**64}]}, "finite"),
        ({"metadata": [{}, "a"]}, "a mapping"),
        ({"metadata": {"a": 1}}, "got dict"),
        ({"thumbnails": [b"PNG", None]}, "JPEG"),
    ],
)
def test_invalid_input_is_refused_and_nothing_is_written(gallery, change, message: str):
    arguments = GOOD | change
    with pytest.raises(GalleryError, match=message):
        gallery.add(arguments.pop("vectors"), arguments.pop("images"), **arguments)
    assert len(gallery) == 0
    assert gallery.add(GOOD["vectors"], GOOD["images"]) == [1, 2]


def test_metadata_accepts_numpy_scalars(gallery: Gallery):
    fields = {"a": np.int64(7), "b": np.float32(0.5), "c": np.bool_(True), "d": np.str_("x")}
    gallery.add(unit(1), [None], metadata=[fields])
    stored = gallery.rows([1])[0].metadata
    assert stored == {"a": 7, "b": 0.5, "c": True, "d": "x"}
    assert [type(stored[name]) for name in "abcd"] == [int, float, bool, str]
    with pytest.raises(GalleryError, match="finite"):
        gallery.add(unit(1), [None], metadata=[{"a": np.float32("nan")}])


def test_endlessly_nested_metadata_is_a_gallery_error(gallery: Gallery):
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for metadata in ([{"a": deep}], [deep], [{"a": {"b": deep}}]):
        with pytest.raises(GalleryError, match="got"):
            gallery.add(unit(1), [None], metadata=metadata)


# --- searching --------------------------------------------------------------------------


def test_the_best_match_of_a_picture_is_itself(gallery: Gallery):
    ids = fill(gallery)
    for id_, hits in zip(ids, gallery.search(unit(6), 3), strict=True):
        assert hits[0].id == id_
        assert hits[0].score == pytest.approx(1, abs=1e-6)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_k_beyond_the_gallery_returns_all(gallery: Gallery):
    assert gallery.search(unit(2), 5) == [[], []]
    fill(gallery)
    assert {hit.id for hit in gallery.search(unit(1), 1000)[0]} == {1, 2, 3, 4, 5, 6}
    assert gallery.search(np.empty((0, DIM)), 3) == []


def test_equal_scores_are_ordered_by_id_also_at_the_last_rank(gallery: Gallery):
    same = np.repeat(unit(1), 50, axis=0)
    gallery.add(same, [None] * 50)
    for k in (1, 2, 7, 49, 50):
        assert [hit.id for hit in gallery.search(unit(1), k)[0]] == list(range(1, k + 1))


def test_a_filter_restricts_the_search(gallery: Gallery):
    fill(gallery)
    result = gallery.search(unit(6), 10, where="camera = 'gate-1' and price < 5")
    assert all({hit.id for hit in hits} == {2, 4} for hits in result)
    assert gallery.search(unit(1), 3, where="pid = 5") == [[]]


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", True, None])
def test_k_is_a_positive_whole_number(gallery: Gallery, k):
    with pytest.raises(QueryError, match="k is a whole number"):
        gallery.search(unit(1), k)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (unit(1)[:, :3], r"\[1, 3\]"),
        (unit(1)[0], r"shape \[8\]"),
        ([["a"] * DIM], "Queries are numbers"),
        (np.full((1, DIM), np.inf), "NaN or infinity"),
    ],
)
def test_invalid_queries_are_refused(gallery: Gallery, queries, message: str):
    with pytest.raises(QueryError, match=message):
        gallery.search(queries, 1)


def test_filters_know_the_columns_of_the_gallery(gallery: Gallery):
    with pytest.raises(FilterError, match="unknown column 'price'"):
        gallery.search(unit(1), 1, where="price < 3")
    fill(gallery)
    assert gallery.search(unit(1), 1, where="price < 3")[0]
    with pytest.raises(FilterError, match="Did you mean price"):
        gallery.delete_where("prise < 3")


def test_the_longest_and_deepest_filters_are_evaluated(gallery: Gallery):
    fill(gallery)
    wide = " or ".join(["sale=true"] * 300)
    deep = "id = 1"
    for level in range(15):
        deep = f"(pid > 1 {'or' if level % 2 else 'and'} {deep})"
    listed = f"id in ({', '.join(map(str, range(700)))})"
    for expression in (wide, deep, listed):
        assert gallery.search(unit(1), 1, where=expression)[0]


# --- deleting ---------------------------------------------------------------------------


def test_deleted_pictures_and_their_ids_never_return(gallery: Gallery):
    fill(gallery)
    gallery.search(unit(1), 1)
    assert gallery.delete([2, 6, 99]) == 2
    assert list(gallery) == [1, 3, 4, 5]
    assert {hit.id for hit in gallery.search(unit(1), 10)[0]} == {1, 3, 4, 5}
    assert gallery.delete_where("sale = true") == 2
    assert list(gallery) == [3, 5]
    assert gallery.delete([]) == 0
    assert gallery.add(unit(1), [None]) == [7]


def test_deletion_is_physical(gallery: Gallery, path: Path):
    # Values that arrive in random order split the pages of an index, and a split leaves old
    # copies behind: with this many rows a few secrets would survive a plain DELETE.
    count = 5000
    random = np.random.default_rng(0)
    secrets = [f"secret-{number:06}" for number in random.permutation(10**6)[:count]]
    vectors = unit(count, seed=5)
    ids = []
    for start in range(0, count, 200):
        part = slice(start, start + 200)
        ids += gallery.add(
            vectors[part],
            [f"image-{secret}" for secret in secrets[part]],
            cameras=[f"camera-{secret}" for secret in secrets[part]],
            metadata=[{"name": secret * 4} for secret in secrets[part]],
            thumbnails=[JPEG + secret.encode() for secret in secrets[part]],
        )
    gone = random.permutation(count)[: count * 9 // 10]
    gallery.delete(ids[i] for i in gone)
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    result = set(re.findall(rb"secret-\d{6}", stored))
    assert result == {secrets[i].encode() for i in set(range(count)) - set(gone.tolist())}
    assert not any(vectors[i].tobytes() in stored for i in gone[:500])


@pytest.mark.parametrize("ids", [["1"], [1.0], [None], [True]])
def test_ids_are_whole_numbers(gallery: Gallery, ids):
    for method in (gallery.rows, gallery.delete, lambda wrong: gallery.thumbnail(wrong[0])):
        with pytest.raises(GalleryError, match="whole numbers"):
            method(ids)


# --- opening ----------------------------------------------------------------------------


def test_a_reopened_gallery_has_the_same_rows(path: Path):
    with Gallery(path, fingerprint="plan-a", dim=DIM) as gallery:
        fill(gallery)
        before = gallery.search(unit(3), 4)
    for options in ({}, {"fingerprint": "plan-a"}, {"dim": DIM, "create": False}):
        with Gallery(str(path), **options) as gallery:
            assert (gallery.fingerprint, gallery.dim, len(gallery)) == ("plan-a", DIM, 6)
            assert gallery.search(unit(3), 4) == before


def test_another_plan_is_refused(path: Path, gallery: Gallery):
    with pytest.raises(
        GalleryError, match=r"filled with plan plan-a, and this is plan bbbbbbbbbbbb;"
    ):
        Gallery(path, fingerprint="b" * 64)
    with pytest.raises(GalleryError, match="width 8, not 16"):
        Gallery(path, dim=16)


def test_a_gallery_without_a_plan_does_not_open_for_one(tmp_path: Path):
    Gallery(tmp_path / "g", dim=2).close()
    with pytest.raises(GalleryError, match=r"plan \(none\)"):
        Gallery(tmp_path / "g", fingerprint="abc")


def test_a_missing_gallery_is_an_error_if_none_may_be_created(tmp_path: Path):
    with pytest.raises(GalleryError, match="There is no gallery"):
        Gallery(tmp_path / "g", dim=2, create=False)
    with pytest.raises(GalleryError, match="give dim="):
        Gallery(tmp_path / "g")
    with pytest.raises(GalleryError, match="at least 1"):
        Gallery(tmp_path / "h", dim=0)
    with pytest.raises(GalleryError, match="does not exist"):
        Gallery(tmp_path / "no" / "g", dim=2)
    with pytest.raises(GalleryError, match="is a folder"):
        Gallery(tmp_path, dim=2)


def test_other_files_are_refused_and_not_changed(tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("not a database " * 100)
    with pytest.raises(GalleryError, match="not a gallery"):
        Gallery(text, dim=2)
    foreign = tmp_path / "foreign"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = foreign.read_bytes()
    with pytest.raises(GalleryError, match="not a finegrain gallery"):
        Gallery(foreign, dim=2)
    assert foreign.read_bytes() == before


def test_an_empty_file_is_not_a_gallery(tmp_path: Path):
    (tmp_path / "g").touch()
    for create in (True, False):
        with pytest.raises(GalleryError, match="is an empty file, and not a gallery"):
            Gallery(tmp_path / "g", dim=2, create=create)
    assert (tmp_path / "g").read_bytes() == b""


def test_a_newer_format_is_refused(path: Path, gallery: Gallery):
    gallery.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(
        GalleryError, match=rf"format 99; .* reads formats up to {SCHEMA_VERSION}\."
    ):
        Gallery(path)


@pytest.mark.parametrize("damage", ["DELETE FROM gallery", "UPDATE gallery SET dim = 'x'"])
def test_a_gallery_that_lost_its_identity_is_refused(path: Path, gallery: Gallery, damage: str):
    gallery.close()
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    with pytest.raises(GalleryError, match="damaged"):
        Gallery(path)


def test_a_gallery_without_tables_is_refused(tmp_path: Path):
    with sqlite3.connect(tmp_path / "g") as connection:
        connection.execute("CREATE TABLE x (y)")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(GalleryError, match="no such table"):
        Gallery(tmp_path / "g")


def check_left_out(gallery: Gallery, fault: str) -> None:
    """Check that a search names picture 3 as damaged and returns the others, as does a check."""
    with pytest.warns(GalleryWarning, match="the vector of picture 3 is damaged"):
        hits = gallery.search(unit(1), 1000)[0]
    assert len(hits) == len(gallery) - 1
    assert 3 not in [hit.id for hit in hits]
    assert any(fault in line for line in gallery.check().faults)


@pytest.mark.parametrize(("byte", "mask"), [(0, 1), (3, 0x40), (13, 0x80)])
def test_one_flipped_bit_of_a_vector_is_reported(path: Path, gallery: Gallery, byte, mask):
    fill(gallery)
    flip_vector(path, 2, byte, mask)
    check_left_out(gallery, "picture 3 does not agree with its checksum")


def test_a_vector_that_is_overwritten_with_zeros_is_reported(path: Path, gallery: Gallery):
    fill(gallery)
    overwrite_vector(path, 2, np.zeros(8))
    check_left_out(gallery, "picture 3 does not agree with its checksum")


def test_the_length_of_a_vector_is_looked_at(path: Path, gallery: Gallery):
    fill(gallery, 2)
    store = gallery._store
    entries = [Entry(image=None, pid=None, camera=None, time=None, track=None, metadata={})]
    with store.writing() as connection:  # type: ignore[union-attr]
        store._write_rows(connection, 2 * unit(1), entries)  # type: ignore[union-attr]
    fill(gallery, 3)
    check_left_out(gallery, "picture 3 does not have length 1")


def test_damaged_pages_are_reported(path: Path, gallery: Gallery):
    fill(gallery, 500)
    gallery.close()
    data = bytearray(path.read_bytes())
    data[16384:] = b"\xaa" * (len(data) - 16384)
    path.write_bytes(data)
    with pytest.raises(GalleryError, match="damaged"), Gallery(path) as damaged:
        damaged.search(unit(1), 1)


def test_a_closed_gallery_is_an_error(gallery: Gallery):
    gallery.close()
    with pytest.raises(GalleryError, match="closed; open it again"):
        len(gallery)
    assert "closed" in repr(gallery)


def test_a_lock_held_by_others_is_reported(path: Path, gallery: Gallery, monkeypatch):
    monkeypatch.setattr("finegrain.gallery.sqlite.schema.BUSY_SECONDS", 0.01)
    other = sqlite3.connect(path, isolation_level=None)
    with Gallery(path) as impatient:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(GalleryError, match="Another process"):
            impatient.add(unit(1), [None])
        other.execute("ROLLBACK")
        assert impatient.add(unit(1), [None]) == [1]
    other.close()


# --- several users ----------------------------------------------------------------------


def test_a_search_sees_writes_of_another_connection(path: Path, gallery: Gallery):
    with Gallery(path) as other:
        fill(gallery)
        assert len(other.search(unit(1), 10)[0]) == 6
        added = other.add(unit(2, seed=9), [None, None])
        gallery.delete([1])
        gallery.add(unit(1, seed=8), [None])
        expected = {2, 3, 4, 5, 6, *added, 9}
        for opened in (gallery, other):
            hits = opened.search(unit(1), 20)[0]
            assert {hit.id for hit in hits} == expected
        assert gallery.search(unit(2), 9) == other.search(unit(2), 9)


def test_threads_share_a_gallery(gallery: Gallery):
    def work(seed: int) -> Hit:
        vector = unit(1, seed=100 + seed)
        (id_,) = gallery.add(vector, [f"{seed}.jpg"], metadata=[{"seed": seed}])
        assert gallery.rows([id_])[0].image == f"{seed}.jpg"
        return gallery.search(vector, 1, where=f"seed = {seed}")[0][0]

    with ThreadPoolExecutor(8) as pool:
        hits = list(pool.map(work, range(40)))
    assert {hit.id for hit in hits} == set(range(1, 41)) == set(gallery)
    assert all(hit.score > 0.999 for hit in hits)


_WRITER = """
import sys
import numpy as np
from finegrain.gallery import Gallery

with Gallery(sys.argv[1], dim=8) as gallery:
    vector = np.eye(1, 8, dtype=np.float32)
    while True:
        ids = gallery.add(np.repeat(vector, 3, axis=0), ["a"] * 3, metadata=[{"x": 1}] * 3)
        print(*ids, flush=True)
"""


def test_acknowledged_rows_survive_a_kill(path: Path):
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline() for _ in range(20)]
    writer.kill()  # during a later insert
    rest, _ = writer.communicate()
    acknowledged += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    known = {int(id_) for line in acknowledged for id_ in line.split()}
    assert len(known) >= 60
    with Gallery(path) as gallery:
        stored = set(gallery)
        assert known <= stored
        assert len(stored) % 3 == 0  # a batch is stored completely or not at all
        assert {hit.id for hit in gallery.search(np.eye(1, 8), 10**6)[0]} == stored
        assert len(gallery.rows(stored)) == len(stored)


_CREATORS = """
import sys
import time
from finegrain.gallery import Gallery

for number in range(15):
    while time.time() < float(sys.argv[2]) + number * 0.03:
        pass
    Gallery(f"{sys.argv[1]}.{number}", dim=8).close()
"""


def test_processes_may_create_the_same_gallery_at_once(path: Path):
    start = str(time.time() + 1)
    arguments = [sys.executable, "-c", _CREATORS, str(path), start]
    creators = [subprocess.Popen(arguments) for _ in range(3)]
    assert [creator.wait() for creator in creators] == [0, 0, 0]


def test_waiting_for_the_journal_ends(path: Path, monkeypatch):
    Gallery(path, dim=DIM).close()
    monkeypatch.setattr("finegrain.gallery.sqlite.schema.BUSY_SECONDS", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(GalleryError, match="Another process"):
        Gallery(path, dim=DIM)
    other.close()


def test_the_values_of_a_column(tmp_path):
    with Gallery(tmp_path / "g", dim=4) as gallery:
        gallery.add(
            np.eye(3, 4, dtype=np.float32),
            [None] * 3,
            cameras=["a", "b", None],
            metadata=[{}, {}, {"price": 2}],
        )
        assert sorted(gallery.values("camera", 5)) == ["a", "b"]
        assert len(gallery.values("camera", 1)) == 1
        assert gallery.values("price", 5) == [2]
        with pytest.raises(FilterError, match="Did you mean 'camera'"):
            gallery.values("camra", 5)
