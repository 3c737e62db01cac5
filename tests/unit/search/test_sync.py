"""A gallery follows its folders and tables: compared with a model, and in single cases."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from finegrain.encoder import Encoded
from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.records import Problem, ProblemKind, Sample
from finegrain.search import ingest as ingesting
from finegrain.search.ingest import Added, IngestOptions, ingest
from finegrain.search.searcher import Searcher


class Eye:
    """An encoder that embeds the mean colour and counts its pictures."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def stream_images(self, sources, *, progress=False):
        for position, source in enumerate(sources):
            self.seen.append(str(source))
            with Image.open(source) as image:
                mean = np.asarray(image.convert("RGB"), np.float32).mean((0, 1)) + 1
            yield Encoded(
                positions=[position],
                embeddings=(mean / np.linalg.norm(mean))[None].astype(np.float32),
                problems=[],
            )


def picture(path: Path, colour: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, 255 - colour, 40)).save(path, "PNG")
    # Written within one tick of the clock, a file could have the time of the one before.
    os.utime(path, ns=(colour * 10**9, colour * 10**9))
    return path


def add(gallery, pictures, metadata=None, *, eye=None, **how) -> Added:
    source = how.pop("source", pictures if isinstance(pictures, Path) else None)
    options = IngestOptions.of(
        source, how.get("replace", False), how.get("sync", False), None,
        how.get("dry_run", False), False, "all", how.get("checksum", False),
    )  # fmt: skip
    return ingest(
        eye or Eye(), gallery, pictures, metadata, options, problems=how.get("problems", ())
    )


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=3) as opened:
        yield opened


def state(gallery: Gallery) -> dict[tuple[str, str], tuple[int, dict]]:
    """Content of a gallery by file name and pid: the embedded colour, and the columns."""
    vectors = gallery._store.vectors(gallery)
    return {
        (Path(row.image).name, str(row.pid)): (
            round(float(vectors[row.id][0] / vectors[row.id][2] * 41 - 1)),
            dict(row.metadata),
        )
        for row in gallery.rows(gallery)
    }


# --- compared with a model ----------------------------------------------------------------

names = st.sampled_from(["a.png", "b.png", "c.png", "d.png"])
rows_given = st.dictionaries(
    st.tuples(names, st.sampled_from([1, 2])),
    st.tuples(st.integers(0, 3).map(lambda n: 60 * n), st.integers(0, 2)),
    min_size=1,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rounds=st.lists(st.tuples(rows_given, st.booleans()), min_size=1, max_size=5))
def test_a_table_that_changes_is_followed_like_a_dictionary(tmp_path_factory, rounds):
    """Rows have a picture, a pid, a colour and a price. Every round is a new table."""
    folder = tmp_path_factory.mktemp("rounds")
    model: dict[tuple[str, int], tuple[int, dict]] = {}
    with Gallery(folder / "g", dim=3) as gallery:
        for given_rows, is_sync in rounds:
            colours = {name: colour for (name, _), (colour, _) in given_rows.items()}
            for name, colour in colours.items():
                picture(folder / "images" / name, colour)
            rows = {k: (colours[k[0]], {"price": price}) for k, (_, price) in given_rows.items()}
            if is_sync:
                model = dict(rows)
            else:
                # Without sync, another pid of a picture from the same source is a correction.
                for name in colours:
                    there = [k for k in model if k[0] == name and k not in rows]
                    new = [k for k in rows if k[0] == name and k not in model]
                    for old, _ in zip(sorted(there, key=lambda k: -order[k]), new, strict=False):
                        del model[old]
                model |= rows
            eye = Eye()
            add(
                gallery,
                [folder / "images" / name for name, _ in rows],
                [{"pid": pid, **columns} for (_, pid), (_, columns) in rows.items()],
                eye=eye, source="table", replace=True, sync=is_sync,
            )  # fmt: skip
            order = {(Path(row.image).name, row.pid): row.id for row in gallery.rows(gallery)}
            result = state(gallery)
            given = {(name, str(pid)): value for (name, pid), value in rows.items()}
            assert {key: result[key] for key in given} == given
            if is_sync:
                assert result == given
            assert len(result) == len(gallery)
            # Repeating it changes nothing and encodes nothing.
            again = add(
                gallery,
                [folder / "images" / name for name, _ in rows],
                [{"pid": pid, **columns} for (_, pid), (_, columns) in rows.items()],
                eye=(idle := Eye()), source="table", replace=True, sync=is_sync,
            )  # fmt: skip
            assert (again.num_known, idle.seen) == (len(rows), [])
            assert state(gallery) == result


# --- single cases --------------------------------------------------------------------------


def test_a_changed_column_is_set_without_encoding(gallery, tmp_path):
    path = picture(tmp_path / "a.png", 10)
    add(gallery, [path], [{"price": 10, "note": "kept"}], source="t")
    (row,) = gallery.rows(gallery)
    plain = add(gallery, [path], [{"price": 8}], source="t", eye=(eye := Eye()))
    assert (plain.num_known, plain.num_differing, eye.seen) == (1, 1, [])
    assert "1 of these differ" in str(plain)
    done = add(gallery, [path], [{"price": 8}], source="t", replace=True, eye=eye)
    assert (done.num_updated, done.num_known, eye.seen) == (1, 0, [])
    (after,) = gallery.rows(gallery)
    assert (after.id, dict(after.metadata)) == (row.id, {"note": "kept", "price": 8})


@pytest.mark.parametrize("how", ["replace", "sync"])
def test_a_checksum_finds_new_content_of_the_same_size_and_time(gallery, tmp_path, how):
    """As after two files of the same size and time were exchanged."""
    folder = tmp_path / "in"
    folder.mkdir()
    paths = [folder / name for name in ("a.bmp", "b.bmp", "c.bmp")]
    for path, colour in zip(paths, [10, 90, 200], strict=True):
        Image.new("RGB", (8, 8), (colour, 255 - colour, 40)).save(path)
        os.utime(path, ns=(10**9, 10**9))
    add(gallery, folder)
    first, second = paths[0].read_bytes(), paths[1].read_bytes()
    for path, content in zip(paths, [second, first], strict=False):
        path.write_bytes(content)
        os.utime(path, ns=(10**9, 10**9))
    assert add(gallery, folder, **{how: True}).num_reencoded == 0
    assert add(gallery, folder, checksum=True).num_differing == 2
    done = add(gallery, folder, checksum=True, **{how: True})
    assert (done.num_reencoded, done.num_known, done.num_removed) == (2, 1, 0)
    assert {name: colour for (name, _), (colour, _) in state(gallery).items()} == {
        "a.bmp": 90, "b.bmp": 10, "c.bmp": 200
    }  # fmt: skip


def test_values_of_another_kind_than_their_column_are_noted(gallery, tmp_path):
    paths = [picture(tmp_path / f"{n}.png", 60 * n) for n in range(4)]
    first = add(gallery, paths[:2], [{"price": 10, "sale": None}, {"price": None}])
    assert first.notes == []
    more = [{"price": value} for value in ("", "8", "abc", 4)]
    again = add(gallery, paths, more)  # the first two stay as they are
    assert (again.num_new, len(again.notes)) == (2, 1)
    assert "note: the column 'price' holds number, and 'abc' is text" in str(again)
    (note,) = add(gallery, paths[:2], [{"price": True}] * 2, replace=True).notes
    assert note == (
        "the column 'price' holds number and text, and True is boolean, as are the values of 1 "
        "more pictures"
    )


def test_a_changed_picture_is_encoded_again_and_keeps_its_columns(gallery, tmp_path):
    path = picture(tmp_path / "in" / "a.png", 10)
    add(gallery, tmp_path / "in", {"camera": "gate", "floor": 2})
    picture(path, 200)
    assert add(gallery, tmp_path / "in").num_differing == 1
    done = add(gallery, tmp_path / "in", replace=True)
    assert (done.num_reencoded, done.num_new, len(done.ids)) == (1, 0, 1)
    ((colour, columns),) = state(gallery).values()
    assert (colour, columns) == (200, {"floor": 2})
    assert gallery.rows(gallery)[0].camera == "gate"


def test_a_touched_file_is_not_encoded_again(gallery, tmp_path):
    path = picture(tmp_path / "in" / "a.png", 10)
    add(gallery, tmp_path / "in")
    os.utime(path, (5, 5))
    for how in ({}, {"replace": True}, {"sync": True}):
        done = add(gallery, tmp_path / "in", eye=(eye := Eye()), **how)
        assert (done.num_known, done.num_differing, eye.seen) == (1, 0, [])
    assert gallery.rows(gallery)[0].stamp.mtime == 5 * 10**9


def test_only_missing_pictures_of_the_source_are_removed(gallery, tmp_path):
    for name in ("one/a.png", "one/b.png", "two/c.png"):
        picture(tmp_path / name, 10 * ord(name[4]) % 250)
    add(gallery, tmp_path / "one")
    add(gallery, tmp_path / "two")
    add(gallery, [tmp_path / "one" / "b.png"], [{"pid": "B"}], source="table")
    (tmp_path / "one" / "a.png").unlink()
    (tmp_path / "two" / "c.png").unlink()
    assert add(gallery, tmp_path / "one").num_removed == 0
    assert add(gallery, tmp_path / "one", replace=True).num_removed == 0
    plan = add(gallery, tmp_path / "one", sync=True, dry_run=True)
    assert (plan.num_removed, len(gallery), plan.is_plan) == (1, 3, True)
    assert "would have removed 1 that are gone" in str(plan)
    assert add(gallery, tmp_path / "one", sync=True).num_removed == 1
    assert {Path(image).name for image in gallery.images()} == {"b.png", "c.png"}


def test_a_partly_read_source_removes_only_missing_files(gallery, tmp_path):
    paths = [picture(tmp_path / f"{n}.png", 60 * n) for n in range(3)]
    add(gallery, paths, source="table")
    paths[2].unlink()
    bad = [Problem(where="t.csv:3", why="is bad", kind=ProblemKind.ROW)]
    done = add(gallery, paths[:1], source="table", sync=True, problems=bad)
    assert (done.num_removed, done.num_kept_back) == (1, 1)
    assert "kept 1 that may be gone" in str(done)
    assert add(gallery, paths[:1], source="table", sync=True).num_removed == 1


def test_moved_files_are_recognised_by_their_content(gallery, tmp_path):
    picture(tmp_path / "crops" / "a.png", 10)
    picture(tmp_path / "crops" / "b.png", 90)
    add(gallery, tmp_path / "crops", [{"note": "a"}, {"note": "b"}])
    before = {row.id: row.metadata for row in gallery.rows(gallery)}
    (tmp_path / "crops").rename(tmp_path / "archive")
    picture(tmp_path / "archive" / "c.png", 200)
    done = add(gallery, tmp_path / "archive", sync=True, eye=(eye := Eye()))
    assert (done.num_moved, done.num_new, done.num_removed, len(eye.seen)) == (2, 1, 0, 1)
    assert {r.id: r.metadata for r in gallery.rows(before)} == before
    assert all(Path(image).exists() for image in gallery.images())


def test_a_copy_is_not_a_moved_file(gallery, tmp_path):
    path = picture(tmp_path / "a.png", 10)
    add(gallery, [path], source="t")
    shutil.copy(path, tmp_path / "b.png")
    done = add(gallery, [path, tmp_path / "b.png"], source="t", sync=True)
    assert (done.num_moved, done.num_new, done.num_known) == (0, 1, 1)


def test_products_that_share_a_picture_have_separate_rows(gallery, tmp_path):
    path = picture(tmp_path / "a.png", 10)
    done = add(gallery, [path] * 3, [{"pid": "R1"}, {"pid": "B1"}, {"pid": "R1"}], source="t")
    assert (done.num_new, done.num_known) == (2, 1)
    assert add(gallery, [path], [{"pid": "R1"}], source="t", sync=True).num_removed == 1
    # Another table has another product, and takes no picture from the first.
    assert add(gallery, [path], [{"pid": "X"}], source="u", replace=True).num_new == 1
    assert set(state(gallery)) == {("a.png", "R1"), ("a.png", "X")}


def test_old_rows_of_an_interrupted_replacement_are_removed(gallery, tmp_path, monkeypatch):
    path = picture(tmp_path / "in" / "a.png", 10)
    add(gallery, tmp_path / "in")
    picture(path, 200)
    with monkeypatch.context() as patch:
        patch.setattr(Gallery, "delete", lambda self, ids: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add(gallery, tmp_path / "in", replace=True)
    assert len(gallery) == 2
    add(gallery, tmp_path / "in", replace=True, eye=(eye := Eye()))
    assert eye.seen == []
    assert [colour for colour, _ in state(gallery).values()] == [200]
    assert len(gallery) == 1


def test_sync_needs_a_source(gallery, tmp_path):
    with pytest.raises(GalleryError, match="sync removes pictures that its source no longer holds"):
        add(gallery, [picture(tmp_path / "a.png", 1)], sync=True)


# --- the gallery itself --------------------------------------------------------------------


def test_columns_are_set_by_filter_or_ids(gallery, tmp_path):
    paths = [picture(tmp_path / f"{n}.png", 60 * n) for n in range(3)]
    add(gallery, paths, [{"pid": n, "price": n} for n in range(3)])
    assert gallery.update("price >= 1", {"price": 9, "pid": "Z", "camera": 3, "sale": True}) == 2
    rows = gallery.rows(gallery)
    assert [(r.pid, r.camera, r.metadata) for r in rows] == [
        (0, None, {"price": 0}),
        ("Z", "3", {"price": 9, "sale": True}),
        ("Z", "3", {"price": 9, "sale": True}),
    ]
    assert gallery.update([rows[0].id, 99], {"price": None, "time": "2026-05-01"}) == 1
    assert gallery.rows([rows[0].id])[0].time == "2026-05-01T00:00:00.000Z"
    assert gallery.rows([rows[0].id])[0].metadata == {"price": None}
    assert len(gallery.search([[0, 0, 1]], 9, where="sale = true")[0]) == 2
    for bad in (
        *({"image": "x"}, {"price": [1]}, {"pid": 1.5}, {"time": "noon"}, {"id": 3}),
        *({"price": "abc"}, {"price": True}, {"sale": 1}),
    ):
        with pytest.raises(GalleryError):
            gallery.update("price = 9", bad)
    assert gallery.rows(gallery)[1] == rows[1]


def test_a_moved_folder_is_reported(gallery, tmp_path):
    picture(tmp_path / "crops" / "a.png", 10)
    picture(tmp_path / "crops2" / "b.png", 90)
    add(gallery, tmp_path / "crops")
    add(gallery, tmp_path / "crops2")
    with pytest.raises(GalleryError, match=r"no picture of .* is under"):
        gallery.move(tmp_path / "other", tmp_path / "crops")
    with pytest.raises(GalleryError, match="is not there"):
        gallery.move(tmp_path / "crops", tmp_path / "archive")
    (tmp_path / "crops").rename(tmp_path / "archive")
    add(gallery, tmp_path / "archive")  # indexed again before the report
    assert gallery.move(tmp_path / "crops", tmp_path / "archive") == 1
    assert [Path(row.image).relative_to(tmp_path.resolve()) for row in gallery.rows(gallery)] == [
        Path("archive/a.png"), Path("crops2/b.png")
    ]  # fmt: skip
    assert add(gallery, tmp_path / "archive", sync=True).num_known == 1


def test_the_searcher_synchronises(searcher: Searcher, crops: Path, tmp_path: Path):
    folder = Path(shutil.copytree(crops, tmp_path / "crops"))
    searcher.add(folder, progress=False)
    shutil.copy(folder / "00.jpg", folder / "01.jpg")
    (folder / "02.jpg").unlink()
    plan = searcher.add(folder, sync=True, dry_run=True, progress=False)
    done = searcher.add(folder, sync=True, progress=False)
    assert (
        (plan.num_reencoded, plan.num_removed) == (done.num_reencoded, done.num_removed) == (1, 1)
    )
    scores = {Path(m.image).name: m.score for m in searcher.query(folder / "00.jpg", 12)}
    assert scores["01.jpg"] == pytest.approx(scores["00.jpg"], abs=1e-5)
    samples = [Sample(image=folder / "03.jpg", captions=("coat",), pid="K")]
    assert searcher.add_samples(samples, source="t", replace=True, progress=False).num_updated == 1


def test_expired_pictures_are_left_out(searcher: Searcher, crops: Path):
    old = searcher.add(crops, {"time": "2020-01-01"}, expire_after=60, progress=False)
    assert (old.num_given, {p.kind for p in old.problems}) == (0, {ProblemKind.EXPIRED})
    assert "12 picture whose time is over" in str(old)
    assert len(searcher.gallery) == 0


def test_a_sync_keeps_what_another_run_adds_after_the_folder_was_listed(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "crops"
    for number in range(3):
        picture(folder / f"{number}.png", 40 * number)
    add(gallery, folder, sync=True)
    listed = ingesting.pictures_in

    def listed_before_another_run(pictures):
        listing = listed(pictures)
        monkeypatch.setattr(ingesting, "pictures_in", listed)
        picture(folder / "new.png", 200)
        with Gallery(gallery.path) as other:
            assert add(other, folder, sync=True).num_new == 1
        return listing

    monkeypatch.setattr(ingesting, "pictures_in", listed_before_another_run)
    add(gallery, folder, sync=True)
    names = {Path(image).name for image in gallery.images()}
    assert names == {"0.png", "1.png", "2.png", "new.png"}


# --- what others do meanwhile ---------------------------------------------------------------


class Slow(Eye):
    """An encoder during whose first picture something happens."""

    def __init__(self, meanwhile) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def stream_images(self, sources, *, progress=False):
        self._meanwhile()
        yield from super().stream_images(sources, progress=progress)


def test_columns_that_are_set_while_changed_pictures_are_encoded_stay(gallery, tmp_path: Path):
    folder = tmp_path / "in"
    for name in ("a.png", "b.png"):
        picture(folder / name, 60)
    add(gallery, folder, {"price": 1, "shelf": "old"})
    for name in ("a.png", "b.png"):
        picture(folder / name, 120)

    def set_columns() -> None:
        gallery.update("price = 1", {"shelf": "new", "price": 5})

    result = add(gallery, folder, {"price": 2}, replace=True, eye=Slow(set_columns))
    assert result.num_reencoded == 2
    # A column of the input has its value, and others what was set.
    assert state(gallery) == {
        (name, "None"): (120, {"price": 2, "shelf": "new"}) for name in ("a.png", "b.png")
    }


def test_a_picture_that_comes_back_while_others_are_encoded_stays(gallery, tmp_path: Path):
    folder = tmp_path / "in"
    for name in ("a.png", "b.png", "c.png"):
        picture(folder / name, 60)
    add(gallery, folder)
    for name in ("a.png", "b.png"):
        (folder / name).unlink()
    picture(folder / "d.png", 180)
    slow = Slow(lambda: picture(folder / "a.png", 60))
    result = add(gallery, folder, sync=True, eye=slow)
    assert {name for name, _ in state(gallery)} == {"a.png", "c.png", "d.png"}
    assert [Path(path).name for path in result.removed] == ["b.png"]
    assert (result.num_removed, result.num_known) == (1, 2)
