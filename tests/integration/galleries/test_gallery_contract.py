"""The contract of a gallery in every store: a file, milvus-lite, a Milvus server."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError, QueryError
from finegrain.gallery import Gallery, Stamp
from finegrain.gallery.row import Entry
from finegrain.records import Problem

DIM = 8
JPEG = b"\xff\xd8\xff" + bytes(range(256)) * 300  # longer than one text of Milvus
START = datetime(2026, 5, 1, 8, tzinfo=UTC)

Place = Callable[[str], str | Path]  # the address of the gallery of a name


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def literal_search(
    ids: Sequence[int], vectors: np.ndarray, query: np.ndarray, k: int
) -> list[tuple[int, float]]:
    scores = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    best = sorted(zip((-scores).tolist(), ids, strict=True))[:k]
    return [(id_, -score) for score, id_ in best]


@pytest.fixture(scope="module")
def kept(place: Place) -> Iterator[Gallery]:
    with Gallery(place("kept"), fingerprint="plan-a", dim=DIM) as gallery:
        yield gallery


@pytest.fixture
def gallery(kept: Gallery) -> Gallery:
    """An empty gallery. It is shared, since creating one on a server takes seconds."""
    kept.delete(kept)
    return kept


def fill(gallery: Gallery, count: int = 6) -> list[int]:
    return gallery.add(
        unit(count),
        [f"crops/{i}.jpg" for i in range(count)],
        pids=[None if i == 5 else 100 + i // 2 for i in range(count)],
        cameras=[f"gate-{i % 2}" for i in range(count)],
        tracks=["t" if i < 3 else None for i in range(count)],
        metadata=[{"price": i * 1.5, "sale": i % 3 == 0, "size": None} for i in range(count)],
    )


# --- adding and reading -----------------------------------------------------------------


def test_rows_are_read_back_as_they_were_added(gallery: Gallery):
    fields = {
        "whole": 2**63 - 1,
        "smallest": -(2**63),
        "real": 0.1 + 0.2,
        "tiny": 1e-308,
        "one": 1.0,
        "yes": True,
        "none": None,
        'any "name\\ ü': "日本\0x",
    }
    first, second = gallery.add(
        unit(2),
        ["a.jpg", None],
        pids=[-(2**63), None],
        times=["2026-05-01T10:00+02:00", None],
        metadata=[fields, {}],
        thumbnails=[None, JPEG],
    )
    assert first < second
    row, other = gallery.rows([first, second])
    assert (row.id, row.image, row.pid, row.camera) == (first, "a.jpg", -(2**63), None)
    assert (row.time, row.expires_at) == ("2026-05-01T08:00:00.000Z", None)
    assert dict(row.metadata) == fields
    assert list(row.metadata) == sorted(fields)
    assert {name: type(value) for name, value in row.metadata.items()} == {
        name: type(value) for name, value in fields.items()
    }
    assert (other.image, other.pid, dict(other.metadata)) == (None, None, {})
    assert gallery.thumbnail(second) == JPEG
    assert gallery.thumbnail(first) is None
    assert gallery.rows([second, 7, 2**70, first, second]) == [other, row, other]


def test_it_behaves_like_a_collection_of_ids(gallery: Gallery):
    ids = fill(gallery)
    assert len(gallery) == 6
    assert list(gallery) == ids == sorted(ids)
    assert ids[2] in gallery
    assert -1 not in gallery
    assert gallery.images() == {f"crops/{i}.jpg" for i in range(6)}
    assert gallery.known(["crops/5.jpg", "crops/6.jpg"]) == {"crops/5.jpg"}
    assert "6 pictures, dim=8" in repr(gallery)
    columns = gallery.columns()
    assert {name: columns[name] for name in ("price", "sale", "size", "time")} == {
        "price": "number",
        "sale": "boolean",
        "size": "null",
        "time": "time",
    }
    assert gallery.add(np.empty((0, DIM), np.float32), []) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": unit(2)[:, :4]}, r"shape \[N, 8\]"),
        ({"vectors": np.full((2, DIM), np.nan)}, "has length nan"),
        ({"pids": [2**63, 2]}, "64 bits"),
        ({"metadata": [{}, {"a": float("nan")}]}, "finite"),
    ],
)
def test_invalid_input_is_refused_and_nothing_is_written(gallery, change, message: str):
    arguments = {"vectors": unit(2), "images": ["a", "b"]} | change
    with pytest.raises(GalleryError, match=message):
        gallery.add(arguments.pop("vectors"), arguments.pop("images"), **arguments)
    assert len(gallery) == 0


def test_threads_share_a_gallery(gallery: Gallery):
    with ThreadPoolExecutor(4) as threads:
        added = threads.map(lambda seed: gallery.add(unit(5, seed), [None] * 5), range(8))
        ids = [id_ for some in added for id_ in some]
    assert sorted(ids) == list(gallery)
    assert len(set(ids)) == 40


def test_search_is_exact(gallery: Gallery):
    vectors, queries = unit(600), unit(20, seed=1) * np.float32(3)
    ids = gallery.add(vectors, [None] * 600)
    for query, hits in zip(queries, gallery.search(queries, 25), strict=True):
        expected = literal_search(ids, vectors, query, 25)
        assert [hit.id for hit in hits] == [id_ for id_, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([s for _, s in expected], abs=1e-5)
    assert gallery.search(np.empty((0, DIM)), 3) == []


def test_equal_scores_are_ordered_by_id_also_at_the_last_rank(gallery: Gallery):
    ids = gallery.add(np.repeat(unit(1), 400, axis=0), [None] * 400)
    for k in (1, 70, 399, 1000):
        assert [hit.id for hit in gallery.search(unit(1), k)[0]] == ids[:k]


@pytest.mark.parametrize("length", [0, 1e-30, 1e30])
def test_queries_have_any_length(gallery: Gallery, length: float):
    ids = gallery.add(unit(90), [None] * 90)
    queries = (unit(2, seed=3) * length).astype(np.float32)
    for query, hits in zip(queries, gallery.search(queries, 5), strict=True):
        assert [hit.id for hit in hits] == [
            id_ for id_, _ in literal_search(ids, unit(90), query, 5)
        ]


def test_k_and_queries_are_checked(gallery: Gallery):
    with pytest.raises(QueryError, match="k is a whole number"):
        gallery.search(unit(1), 0)
    with pytest.raises(QueryError, match="NaN or infinity"):
        gallery.search(np.full((1, DIM), np.nan), 1)
    with pytest.raises(QueryError, match="shape"):
        gallery.search(unit(1)[:, :3], 1)
    assert gallery.search(unit(2), 5) == [[], []]


def test_biases_are_added_and_kept(gallery: Gallery, tmp_path: Path):
    vectors, queries = unit(400), unit(6, seed=1) * np.float32(3)
    biases = np.random.default_rng(2).standard_normal(400).astype(np.float32)
    biases[::3] = 0
    ids = gallery.add(vectors, [None] * 400, biases=biases)
    assert gallery.set_bias([ids[0], ids[5], 2**40], [1e6, -0.25, 1]) == 2
    biases[[0, 5]] = 1e6, -0.25
    gallery.update(ids[5:7], {"camera": "gate-9"})
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64) + biases
    for row, hits in zip(scores.astype(np.float32), gallery.search(queries, 50), strict=True):
        expected = np.lexsort((ids, -row))[:50]
        assert [hit.id for hit in hits] == [ids[place] for place in expected]
        assert [hit.score for hit in hits] == pytest.approx(row[expected].tolist(), rel=1e-6)
    stated = gallery.biases(ids[:8])
    assert {id_: bias for id_, bias in stated.items() if bias} == {
        id_: bias for id_, bias in zip(ids[:8], biases[:8].tolist(), strict=True) if bias
    }
    np.testing.assert_array_equal(gallery.vectors([ids[5]])[ids[5]], vectors[5])
    gallery.export(tmp_path / "out")
    gallery.delete(gallery)
    loaded = gallery.load(tmp_path / "out")
    assert gallery.biases([loaded[5]]) == {loaded[5]: -0.25}
    unbiased = gallery.search(queries, 5, biased=False)
    for query, hits in zip(queries, unbiased, strict=True):
        assert [hit.id for hit in hits] == [
            id_ for id_, _ in literal_search(loaded, vectors, query, 5)
        ]


def test_the_best_of_several_vectors_counts(place: Place):
    several = unit(90).reshape(30, 3, DIM)
    queries = unit(8, seed=3)
    with Gallery(place("several"), dim=DIM, vectors_per_row=3) as gallery:
        ids = gallery.add(several, [None] * 30, biases=np.linspace(-0.1, 0.1, 30))
        (few,) = gallery.add([several[0, 1:2]], ["few.jpg"])
        best = np.einsum("qd,rkd->qrk", queries, several).max(axis=2) + np.linspace(-0.1, 0.1, 30)
        for row, query, hits in zip(best, queries, gallery.search(queries, 31), strict=True):
            want = {**dict(zip(ids, row.tolist(), strict=True)), few: query @ several[0, 1]}
            assert {hit.id: hit.score for hit in hits} == pytest.approx(want, abs=1e-5)
            assert [hit.id for hit in hits] == sorted(want, key=lambda id_: -want[id_])
        np.testing.assert_allclose(gallery.vectors([ids[2]])[ids[2]], several[2], atol=1e-6)
    with pytest.raises(GalleryError, match="holds 3 vectors a picture, not 2"):
        Gallery(place("several"), vectors_per_row=2)
    with Gallery(place("several")) as gallery:
        assert (gallery.dim, gallery.vectors_per_row) == (DIM, 3)


def test_a_grouped_search_returns_the_best_picture_of_each_group(gallery: Gallery):
    ids = fill(gallery)
    query = unit(1, seed=5)
    order = [id_ for id_, _ in literal_search(ids, unit(6), query[0], 6)]
    group = dict(zip(ids, [100, 100, 101, 101, 102, None], strict=True))
    expected = [
        id_ for n, id_ in enumerate(order) if group[id_] not in [group[o] for o in order[:n]]
    ]
    assert [hit.id for hit in gallery.search(query, 6, group_by="pid")[0]] == expected
    tracked = gallery.search(query, 2, "camera = 'gate-0'", group_by="track")[0]
    assert len({ids.index(hit.id) for hit in tracked} & {0, 2}) == 1


def test_near_duplicates_of_a_better_match_are_left_out(gallery: Gallery):
    nearly = unit(1) + np.float32(1e-3) * unit(80, seed=2)
    nearly /= np.linalg.norm(nearly, axis=1, keepdims=True)
    ids = gallery.add(np.concatenate([nearly, -unit(1)]), [None] * 81)
    hits = gallery.search(nearly[7:8], 2, distinct=0.98)[0]
    assert [hit.id for hit in hits] == [ids[7], ids[80]]


# --- deleting, expiring, duplicates -----------------------------------------------------


def test_deleted_pictures_are_in_no_result(gallery: Gallery):
    ids = fill(gallery)
    gallery.search(unit(1), 6)
    assert gallery.delete([ids[0], ids[0], 12345, -1]) == 1
    assert gallery.delete_where("camera = 'gate-1' and price > 2") == 2
    left = [ids[1], ids[2], ids[4]]
    assert list(gallery) == left
    assert {hit.id for hit in gallery.search(unit(1), 6)[0]} == set(left)
    assert gallery.delete([]) == 0
    assert min(gallery.add(unit(1), [None])) > max(ids)
    assert -1 not in list(gallery)


def test_expired_pictures_are_deleted(gallery: Gallery, monkeypatch):
    now = [START]
    monkeypatch.setattr("finegrain.times.now", lambda: now[0])
    short, long = gallery.add(
        unit(2),
        ["a", "b"],
        times=[START - timedelta(days=1), START],
        expire_after=timedelta(days=2),
    )
    (ever,) = gallery.add(unit(1), ["c"])
    assert gallery.expire() == 0
    now[0] += timedelta(days=1)
    assert list(gallery) == [long, ever]
    assert len(gallery) == 2
    assert gallery.images() == {"b", "c"}
    assert gallery.rows([short]) == []
    assert {hit.id for hit in gallery.search(unit(1), 9)[0]} == {long, ever}
    now[0] += timedelta(days=1)
    assert gallery.delete([long]) == 0
    gallery.expire()
    now[0] = START
    assert ever in gallery
    assert short not in gallery


def test_a_known_path_is_handled_as_requested(gallery: Gallery):
    (first,) = gallery.add(unit(1), ["a"])
    (second,) = gallery.add(unit(1), ["a"])
    assert gallery.add(unit(2, 1), ["b", "a"], on_duplicate="skip")[1] == first
    with pytest.raises(GalleryError, match="holds 'a' already"):
        gallery.add(unit(2), ["c", "a"], on_duplicate="error")
    with pytest.raises(GalleryError, match="more than once"):
        gallery.add(unit(2), ["c", "c"], on_duplicate="replace")
    assert gallery.images() == {"a", "b"}
    (third,) = gallery.add(unit(1, 2), ["a"], pids=[7], on_duplicate="replace")
    assert third > second
    assert [row.pid for row in gallery.rows([first, second, third])] == [7]
    assert len(gallery) == 2


def test_a_gallery_is_stored_and_opens_with_its_own_plan_only(place: Place):
    address = place("opened")
    with pytest.raises(GalleryError, match="There is no gallery"):
        Gallery(address, create=False)
    assert not Gallery.exists(address)
    with pytest.raises(GalleryError, match="give dim="):
        Gallery(address)
    with pytest.raises(GalleryError, match="at least 1; got dim=0"):
        Gallery(address, dim=0)
    with Gallery(address, fingerprint="plan-a", dim=DIM) as gallery:
        ids = fill(gallery)
    with pytest.raises(GalleryError, match="closed"):
        gallery.search(unit(1), 1)
    assert Gallery.exists(address)
    with pytest.raises(GalleryError, match="was filled with plan plan-a, and this is plan plan-b"):
        Gallery(address, fingerprint="plan-b")
    with pytest.raises(GalleryError, match="width 8, not 16"):
        Gallery(address, dim=16)
    with Gallery(address, create=False) as one, Gallery(address, fingerprint="plan-a") as other:
        assert (one.fingerprint, one.dim, list(one)) == ("plan-a", DIM, ids)
        (new,) = other.add(unit(1), [None], metadata=[{"just": "now"}])
        assert new in one
        assert [hit.id for hit in one.search(unit(1), 9, "just = 'now'")[0]] == [new]
        other.delete(ids)
        assert [hit.id for hit in one.search(unit(1), 9)[0]] == [new]


def test_an_export_can_be_loaded(gallery: Gallery, tmp_path: Path):
    ids = fill(gallery)
    gallery.add(-unit(1), [None], thumbnails=[JPEG])
    assert gallery.export(tmp_path / "out") == 7
    before = gallery.rows(ids)
    gallery.delete(gallery)
    loaded = gallery.load(tmp_path / "out")
    assert list(gallery) == loaded
    assert [(r.image, r.pid, r.track, dict(r.metadata)) for r in gallery.rows(loaded[:6])] == [
        (r.image, r.pid, r.track, dict(r.metadata)) for r in before
    ]
    assert gallery.thumbnail(loaded[6]) == JPEG
    assert gallery.search(unit(6), 1) == gallery.search(unit(6), 1, "id != 0")
    shutil.copy(tmp_path / "out/img_emb/img_emb_0.npy", tmp_path / "out/img_emb/img_emb_1.npy")
    (tmp_path / "out/metadata/metadata_1.jsonl").write_text("{}\n")
    with pytest.raises(GalleryError, match="its metadata ends"):
        gallery.load(tmp_path / "out")
    assert list(gallery) == loaded


@pytest.mark.slow
def test_a_server_requires_its_login(server: str, login: str, monkeypatch: pytest.MonkeyPatch):
    for address in (f"http://{server}/people", f"http://root:hunter2@{server}/people"):
        with pytest.raises(GalleryError, match="that the login is right") as caught:
            Gallery(address, create=False)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    monkeypatch.setenv("MILVUS_TOKEN", login)
    with pytest.raises(GalleryError, match="There is no gallery"):
        Gallery(f"http://{server}/people", create=False)


@pytest.mark.slow
def test_another_collection_is_refused_and_not_changed(server: str, login: str):
    from pymilvus import MilvusClient

    client = MilvusClient(f"http://{server}", token=login)
    client.create_collection("foreign", dimension=DIM)
    with pytest.raises(GalleryError, match="is a Milvus collection, but not a finegrain gallery"):
        Gallery(f"http://{login}@{server}/foreign", dim=DIM)
    assert client.has_collection("foreign")
    client.drop_collection("foreign")
    client.close()


@pytest.mark.slow
def test_bounded_searches_see_earlier_rows(server: str, login: str):
    address = f"http://{login}@{server}/bounded"
    with Gallery(address, dim=DIM) as gallery:
        ids = gallery.add(unit(3), [None] * 3)
        assert len(gallery) == 3
    with Gallery(f"{address}?consistency=Bounded") as gallery:
        assert {hit.id for hit in gallery.search(unit(1), 9)[0]} == set(ids)
        assert [row.id for row in gallery.rows(ids)] == ids
        assert gallery.delete(ids) == 3
        assert list(gallery) == []


@dataclass
class Batch:
    positions: list[int]
    embeddings: np.ndarray
    problems: list[Problem]


@dataclass
class Encoder:
    """Embeds each picture as the axis of its last byte, in batches of one."""

    embed_dim: int = 6
    asked: list[object] = field(default_factory=list)

    def stream_images(self, sources: Sequence[Path | bytes]) -> Iterator[Batch]:
        for position, source in enumerate(sources):
            self.asked.append(source)
            if isinstance(source, Path) and not source.exists():
                yield Batch([], np.empty((0, 6), np.float32), [Problem(where="x", why="is gone")])
                continue
            content = source if isinstance(source, bytes) else source.read_bytes()
            yield Batch([position], np.eye(6, dtype=np.float32)[[content[-1]]], [])


def test_a_gallery_can_be_reindexed_with_another_plan(place: Place, tmp_path: Path):
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    with (
        Gallery(place("reindexed"), fingerprint="old", dim=DIM) as gallery,
        Gallery(place("reindexed")) as other,
    ):
        ids = gallery.add(
            unit(4),
            [*map(str, paths), None],
            metadata=[{"n": n} for n in range(4)],
            thumbnails=[None] * 3 + [JPEG + b"\x03"],
        )
        for path in paths[1:]:
            path.rename(path.with_suffix(".away"))
        done = gallery.reindex(Encoder(), "new", progress=False)
        assert (done.num_encoded, done.switched) == (2, False)
        assert [problem.why for problem in done.problems] == ["is gone", "is gone"]
        assert gallery.fingerprint == "old"
        assert gallery.search(unit(1), 1)[0][0].id == ids[0]
        paths[1].with_suffix(".away").rename(paths[1])
        gallery.delete(ids[:1])
        encoder = Encoder()
        done = gallery.reindex(encoder, "new", drop_unreadable=True, progress=False)
        assert (done.num_encoded, len(done.problems), done.switched) == (1, 1, True)
        assert paths[0] not in encoder.asked
        assert (gallery.fingerprint, gallery.dim) == ("new", 6)
        left = [ids[1], ids[3]]
        assert list(gallery) == left
        assert [hits[0].id for hits in gallery.search(np.eye(6)[[1, 3]], 1, "n > 0")] == left
        with pytest.raises(GalleryError, match="reindexed"):
            other.search(unit(1), 1)
    with Gallery(place("reindexed"), fingerprint="new") as again:
        assert again.thumbnail(ids[3]) == JPEG + b"\x03"
        assert again.reindex(Encoder(), "new", progress=False).num_encoded == 0


# --- changing columns without encoding ------------------------------------------------------


def test_columns_are_set_and_nothing_else_changes(gallery: Gallery):
    ids = fill(gallery)
    (pictured,) = gallery.add(unit(1, 9), [None], thumbnails=[JPEG])
    before = {row.id: row for row in gallery.rows(gallery)}
    vectors = gallery._store.vectors(gallery)
    changed = {"price": 90, "pid": "R1", "track": None, "new": True}
    assert gallery.update("price >= 3", changed) == 4
    assert gallery.update([pictured], {"camera": "gate-9"}) == 1
    for row in gallery.rows(gallery):
        old = before[row.id]
        if row.id in ids[2:]:
            assert (row.pid, row.track) == ("R1", None)
            assert row.metadata == {**old.metadata, "price": 90, "new": True}
            assert (row.image, row.camera, row.added_at) == (old.image, old.camera, old.added_at)
        elif row.id == pictured:
            assert row.camera == "gate-9"
        else:
            assert row == old
    assert gallery.thumbnail(pictured) == JPEG
    after = gallery._store.vectors(gallery)
    assert all(np.array_equal(after[id_], vectors[id_]) for id_ in vectors)
    assert len(gallery.search(unit(1), 9, where="new = true and pid = 'R1'")[0]) == 4
    with pytest.raises(GalleryError, match="'price' holds number, and 'dear' is text"):
        gallery.update("price >= 3", {"price": "dear", "new": False})
    assert gallery.columns()["price"] == "number"
    assert len(gallery.search(unit(1), 9, where="new = true")[0]) == 4


def test_stamps_and_sources_are_read_back(gallery: Gallery):
    stamp = Stamp(size=2**40, mtime=2**62 + 1, digest="ab" * 16)
    entry = Entry(
        image="/a/b.jpg",
        pid="P",
        camera=None,
        time=None,
        track=None,
        metadata={"price": 3},
        source="/a",
        stamp=stamp,
    )
    (id_,) = gallery.add_entries(unit(1), [entry]).ids
    gallery.add(unit(1), [None])
    (row,) = gallery.rows([id_])
    assert (row.source, row.stamp, row.pid, row.metadata) == ("/a", stamp, "P", {"price": 3})
    (place,) = gallery.places()
    assert (place.id, place.image, place.source) == (id_, "/a/b.jpg", "/a")
    assert (place.size, place.digest) == (stamp.size, stamp.digest)
    rows_of = {image: (rows, set(bad)) for image, rows, bad in gallery.rows_of(["/a/b.jpg", "/x"])}
    assert rows_of == {"/a/b.jpg": ([row], set()), "/x": ([], set())}


def test_any_column_can_group_and_has_known_values(gallery: Gallery):
    fill(gallery)
    (every,) = gallery.search(unit(1), 9)
    (groups,) = gallery.search(unit(1), 9, group_by="sale")
    rows = {row.id: row for row in gallery.rows(gallery)}
    assert [rows[hit.id].metadata["sale"] for hit in groups] == list(
        dict.fromkeys(rows[hit.id].metadata["sale"] for hit in every)
    )
    with pytest.raises(QueryError, match="no picture in the gallery has a 'time'"):
        gallery.search(unit(1), 9, group_by="time")
    assert gallery.notes_on("camera = 'GATE-1'") == [
        "no picture has camera = 'GATE-1'; there is 'gate-1'"
    ]
    assert gallery.notes_on("size = 3") == ["no picture has a value in the column 'size'"]
    assert gallery.search(unit(1), 2, offset=3)[0] == every[3:5]
