"""Export and load of galleries, and load of other tools' files."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import GalleryError, MissingExtraError
from finegrain.gallery import Gallery, exchange

DIM = 4
JPEG = b"\xff\xd8\xff\x00thumbnail"
TARGETS = ["out", "out.parquet"]


def unit(count: int) -> np.ndarray:
    vectors = np.random.default_rng(count).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "g", fingerprint="plan-a", dim=DIM) as opened:
        opened.add(
            unit(3),
            ["日本.jpg", None, "c\n.jpg"],
            pids=[7, None, -(2**63)],
            cameras=["gate-3", None, ""],
            times=["2026-05-01T08:00:00.123", None, "1969-01-01"],
            tracks=["gate-3/1", None, None],
            metadata=[{"x": 0.1 + 0.2, "y": 2**60 + 1, "z": True}, {}, {"x": "é\0", "y": None}],
            thumbnails=[None, JPEG, None],
        )
        opened.add(unit(1), ["d.jpg"], times=["2999-01-01"], expire_after=60)
        yield opened


def content(gallery: Gallery) -> list[tuple]:
    rows = gallery.rows(gallery)
    vectors = gallery._store.vectors(row.id for row in rows)
    return [
        (
            row.image, row.pid, row.camera, row.time, row.track, row.expires_at,
            {name: (type(value), value) for name, value in row.metadata.items()},
            gallery.thumbnail(row.id), vectors[row.id].tobytes(),
        )
        for row in rows
    ]  # fmt: skip


def test_an_invalid_value_is_named_by_its_place_in_the_export(
    gallery: Gallery, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("finegrain.gallery.sqlite.store_reader._CHUNK_ROWS", 3)
    gallery.export(tmp_path / "out")
    metadata = tmp_path / "out/metadata/metadata_1.jsonl"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "pid": 1.5}) + "\n")
    with (
        Gallery(tmp_path / "again", fingerprint="plan-a", dim=DIM) as again,
        pytest.raises(GalleryError, match="picture 3: pid"),
    ):
        again.load(tmp_path / "out")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("chunk", [2, 8192])
def test_a_loaded_export_is_equal(gallery: Gallery, tmp_path: Path, monkeypatch, target, chunk):
    monkeypatch.setattr("finegrain.gallery.sqlite.store_reader._CHUNK_ROWS", chunk)
    monkeypatch.setattr("finegrain.gallery.exchange._CHUNK_ROWS", chunk)
    assert gallery.export(tmp_path / target) == 4
    with Gallery(tmp_path / "again", fingerprint="plan-a", dim=DIM) as again:
        again.add(unit(1), ["x"])
        assert again.load(str(tmp_path / target)) == [2, 3, 4, 5]
        again.delete([1])
        assert content(again) == content(gallery)
        assert again.columns() == gallery.columns()
    assert {path.name for path in tmp_path.iterdir()} >= {"g", "again", target}
    assert not list(tmp_path.glob("*.tmp"))


@settings(max_examples=10, deadline=None)
@given(
    fields=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=5).filter(
            lambda name: name not in ("id", "pid", "time")
        ),
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec="utf-8"), max_size=5),
        max_size=3,
    ),
    target=st.sampled_from(TARGETS),
)
def test_any_metadata_is_preserved(tmp_path_factory, fields, target):
    folder = tmp_path_factory.mktemp("any")
    with Gallery(folder / "g", dim=DIM) as gallery, Gallery(folder / "h", dim=DIM) as again:
        gallery.add(unit(1), [None], metadata=[fields])
        gallery.export(folder / target)
        again.load(folder / target)
        assert content(again) == content(gallery)
    shutil.rmtree(folder)


@pytest.mark.parametrize("target", TARGETS)
def test_an_empty_gallery_can_be_exported_and_loaded(tmp_path: Path, target: str):
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        assert gallery.export(tmp_path / target) == 0
        assert gallery.load(tmp_path / target) == []


def test_other_tools_can_read_the_files(gallery: Gallery, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    gallery.export(tmp_path / "out")
    np.testing.assert_array_equal(np.load(tmp_path / "out/img_emb/img_emb_0.npy")[:3], unit(3))
    lines = (tmp_path / "out/metadata/metadata_0.jsonl").read_text("utf-8").split("\n")
    first = json.loads(lines[0])
    assert (first["id"], first["image_path"], first["pid"]) == (1, "日本.jpg", 7)
    gallery.export(tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 4
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist())[:3], unit(3))
    assert str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"


def test_the_output_of_clip_retrieval_can_be_loaded(tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "theirs/img_emb").mkdir(parents=True)
    (tmp_path / "theirs/metadata").mkdir()
    for number in (0, 2, 10):
        np.save(tmp_path / f"theirs/img_emb/img_emb_{number}.npy", unit(3).astype(np.float16))
        columns = {
            "image_path": [f"{number}-{row}.jpg" for row in range(3)],
            "caption": ["a", None, "c"],
            "width": [1, 2, 3],
        }
        parquet.write_table(
            arrow.table(columns), tmp_path / f"theirs/metadata/metadata_{number}.parquet"
        )
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        assert len(gallery.load(tmp_path / "theirs")) == 9
        assert [row.image for row in gallery.rows([1, 4, 7])] == ["0-0.jpg", "2-0.jpg", "10-0.jpg"]
        assert gallery.rows([2])[0].metadata == {"caption": None, "width": 2}
        assert len(gallery.search(unit(1), 9, where="caption = 'a'")[0]) == 3


# --- errors -----------------------------------------------------------------------------


def test_existing_files_are_not_overwritten(gallery: Gallery, tmp_path: Path):
    (tmp_path / "taken.parquet").write_text("precious")
    for target in (tmp_path / "taken.parquet", tmp_path):
        with pytest.raises(GalleryError, match="exists already"):
            gallery.export(target)
    assert (tmp_path / "taken.parquet").read_text() == "precious"
    for target in ("no/such/out.parquet", "g/out"):
        with pytest.raises(GalleryError, match="cannot be written"):
            gallery.export(tmp_path / target)


def test_an_interrupted_export_leaves_no_files(gallery: Gallery, tmp_path: Path, monkeypatch):
    def killed(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exchange.np, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        gallery.export(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_missing_extra_is_named(gallery: Gallery, tmp_path: Path, monkeypatch):
    gallery.export(tmp_path / "out.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"finegrain\[train\]"):
        gallery.export(tmp_path / "other.parquet")
    with pytest.raises(MissingExtraError, match=r"finegrain\[train\]"):
        gallery.load(tmp_path / "out.parquet")


@pytest.mark.parametrize("target", TARGETS)
def test_vectors_of_another_plan_or_width_are_refused(gallery, tmp_path: Path, target: str):
    gallery.export(tmp_path / target)
    with (
        Gallery(tmp_path / "h", fingerprint="plan-b", dim=DIM) as other,
        pytest.raises(GalleryError, match=r"of plan plan-a, and .* those of plan plan-b"),
    ):
        other.load(tmp_path / target)
    with (
        Gallery(tmp_path / "i", fingerprint="plan-a", dim=5) as wider,
        pytest.raises(GalleryError, match=r"shape \[N, 5\]"),
    ):
        wider.load(tmp_path / target)


def damage(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


LINES = "metadata/metadata_0.jsonl"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("img_emb/img_emb_0.npy", b"", "damaged or no export"),
        ("img_emb/img_emb_0.npy", b"\x93NUMPY\x01\x00", "damaged or no export"),
        ("img_emb/img_emb_x.npy", b"", "no number"),
        (LINES, None, "damaged or no export"),
        (LINES, b"", "ends after 0 pictures"),
        (LINES, b"{}\n" * 5, "more than its 4 pictures"),
        (LINES, b"[1]\n" * 4, "expected an object"),
        (LINES, b'{"metadata": 3}\n' * 4, "expected an object as metadata"),
        (LINES, b"[" * 100_000, "damaged or no export"),
        (LINES, b"\xff\n", "damaged or no export"),
        (LINES, b'{"thumbnail": "%"}\n' * 4, "damaged or no export"),
        (LINES, b'{"thumbnail": "YWJj"}\n' * 4, "JPEG"),
        (LINES, b'{"pid": 7.5}\n' * 4, "picture 0: pid is"),
        (LINES, b'{"time": "noon"}\n' * 4, "picture 0: time is"),
        (LINES, b'{"expires_at": "noon"}\n' * 4, "expires_at is a datetime"),
        (LINES, b'{"expires_at": 7}\n' * 4, "expires_at is a datetime"),
        (LINES, b'{"tags": [1]}\n' * 4, "tags"),
        (LINES, b"{}\n{}\n" + b'{"camera": 0.5}\n' * 2, "picture 2: camera is"),
        ("gallery.json", b"{}", "expected a plan's fingerprint"),
        ("gallery.json", b"{", "damaged or no export"),
    ],
)
def test_damage_is_reported_and_nothing_is_written(
    gallery: Gallery, tmp_path: Path, name: str, content: bytes | None, message: str
):
    gallery.export(tmp_path / "out")
    damage(tmp_path / "out", name, content)
    with pytest.raises(GalleryError, match=message):
        gallery.load(tmp_path / "out")
    assert len(gallery) == 4


def test_pickles_are_not_opened(gallery: Gallery, tmp_path: Path):
    gallery.export(tmp_path / "out")
    np.save(tmp_path / "out/img_emb/img_emb_0.npy", np.array([{}] * 4), allow_pickle=True)
    with pytest.raises(GalleryError, match="damaged or no export"):
        gallery.load(tmp_path / "out")


def test_other_files_are_not_an_export(gallery: Gallery, tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    parquet.write_table(arrow.table({"x": [1]}), tmp_path / "x.parquet")
    ragged = arrow.table({"vector": [[1.0], [1.0, 0.0]]})
    parquet.write_table(ragged, tmp_path / "ragged.parquet")
    for name, message in [
        ("text", "damaged or no export"),
        ("empty", "there are no img_emb"),
        ("nothing", "there are no img_emb"),
        ("x.parquet", "no column named vector"),
        ("ragged.parquet", "different widths"),
    ]:
        with pytest.raises(GalleryError, match=message):
            gallery.load(tmp_path / name)
    assert len(gallery) == 4


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_an_export_is_private(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=2) as gallery:
        gallery.add([[1, 0]], ["a"])
        gallery.export(tmp_path / "folder")
        gallery.export(tmp_path / "file.parquet")
    written = [tmp_path / "file.parquet", tmp_path / "folder", *(tmp_path / "folder").rglob("*")]
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in written}
    assert modes == {True: 0o700, False: 0o600}
