"""Gallery features through the searcher and the command line."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from finegrain.cli.parser import main
from finegrain.errors import GalleryError, QueryError
from finegrain.plan import Plan, write_plan
from finegrain.search.searcher import Searcher

NUM_CROPS = 12


@pytest.fixture
def other_plan(plan: Path, tmp_path: Path) -> Path:
    """The same graphs with another way to fit pictures, so the vectors differ."""
    manifest = Plan(plan).manifest
    with zipfile.ZipFile(plan) as archive:
        members = {name: archive.read(name) for name in manifest.sha256}
    write_plan(tmp_path / "other.plan", replace(manifest, fit="pad"), members)
    return tmp_path / "other.plan"


@pytest.fixture
def tracked(searcher: Searcher, crops: Path) -> Searcher:
    """Three crops of each person, on two tracks, minutes apart."""
    searcher.add(
        sorted(crops.iterdir()),
        [
            {"pid": n // 3, "track": f"t{n % 2}", "time": f"2026-05-01T08:{n:02}", "x": n}
            for n in range(NUM_CROPS)
        ],
        progress=False,
    )
    return searcher


def test_a_searcher_keeps_vectors_in_memory_if_asked(tracked: Searcher, plan: Path):
    codes = Searcher(plan, gallery=tracked.gallery.path).gallery
    vectors = Searcher(plan, gallery=tracked.gallery.path, memory="vectors").gallery
    assert [g._store._follower._memory for g in (codes, vectors)] == ["codes", "vectors"]


def test_times_and_tracks_are_columns_and_are_shown(tracked: Searcher):
    matches = tracked.query("coat", where="time >= '2026-05-01T08:10' and track = 't1'")
    assert [(match.time, match.track, match.metadata) for match in matches] == [
        ("2026-05-01T08:11:00.000Z", "t1", {"x": 11})
    ]
    assert tracked.gallery.rows([1])[0].metadata == {"x": 0}


def test_a_grouped_query_returns_the_best_of_each_group(tracked: Searcher):
    every = tracked.query("coat", NUM_CROPS)
    people = tracked.query("coat", NUM_CROPS, group_by="pid")
    assert [match.pid for match in people] == list(dict.fromkeys(match.pid for match in every))
    assert [match.rank for match in people] == [1, 2, 3, 4]
    assert people[0].id == every[0].id
    assert len(tracked.query("coat", 5, group_by="track")) == 2
    assert len(tracked.query("coat", distinct=0)) == 1
    with pytest.raises(QueryError, match=r"unknown column 'kamera'\. Did you mean camera"):
        tracked.query("coat", group_by="kamera")


def test_pictures_expire(searcher: Searcher, crops: Path):
    paths = sorted(crops.iterdir())
    searcher.add(paths[:4], {"time": "2020-01-01"}, expire_after=60, progress=False)
    searcher.add(paths[4:], expire_after=3600, progress=False)
    assert len(searcher.gallery) == NUM_CROPS - 4
    assert searcher.expire() == 0  # pictures that had already expired were left out
    assert len(searcher.query("coat", NUM_CROPS - 4)) == NUM_CROPS - 4


def test_replacing_encodes_again(searcher: Searcher, crops: Path, tmp_path: Path):
    path = Path(shutil.copy(crops / "00.jpg", tmp_path / "crop.jpg"))
    searcher.add([path, crops / "02.jpg"], {"day": 1}, progress=False)
    shutil.copy(crops / "01.jpg", path)
    assert searcher.add(path, {"day": 2}, progress=False).num_known == 1
    assert round(searcher.query(crops / "01.jpg", 1)[0].score, 3) < 1
    added = searcher.add([path, path], {"day": 2}, replace=True, progress=False)
    assert (added.ids, added.num_known) == ([3], 1)
    match = searcher.query(crops / "01.jpg", 1)[0]
    assert (match.id, round(match.score, 3), match.metadata) == (3, 1.0, {"day": 2})
    assert len(searcher.gallery) == 2


def test_a_changed_picture_that_cannot_be_read_keeps_its_row(
    searcher: Searcher, crops: Path, tmp_path: Path
):
    damaged, changed = (shutil.copy(crops / n, tmp_path / n) for n in ("00.jpg", "01.jpg"))
    searcher.add([damaged, changed], {"day": 1}, progress=False)
    before = searcher.gallery.rows([1])
    Path(damaged).write_bytes(b"no picture")
    shutil.copy(crops / "02.jpg", changed)
    result = searcher.add([damaged, changed], {"day": 2}, replace=True, progress=False)
    assert [problem.where for problem in result.problems] == [str(damaged)]
    assert (list(searcher.gallery), result.ids) == ([1, 3], [3])
    assert searcher.gallery.rows([1]) == before


# --- another plan -----------------------------------------------------------------------


def test_reindexing_adapts_a_gallery_to_another_plan(tracked: Searcher, other_plan: Path):
    path = tracked.gallery.path
    image = Path(tracked.gallery.rows([5])[0].image or "")
    with pytest.raises(GalleryError, match="finegrain index PLAN PICTURES --reindex"):
        Searcher(other_plan, gallery=path)
    with pytest.raises(GalleryError, match="finegrain index PLAN PICTURES --reindex"):
        Searcher(other_plan, gallery=tracked.gallery)
    done = Searcher.reindex(other_plan, gallery=path, threads=1, progress=False)
    assert (done.num_encoded, done.problems, done.switched) == (NUM_CROPS, [], True)
    with Searcher(other_plan, gallery=path, threads=1) as searcher:
        match = searcher.query(image, 1)[0]
        assert (match.id, round(match.score, 4), match.metadata["x"]) == (5, 1.0, 4)
    for ask in (
        lambda: tracked.query("coat"),
        lambda: tracked.gallery.rows([5]),
        lambda: tracked.gallery.delete([5]),
        lambda: tracked.gallery.export(path.with_name("export")),
    ):
        with pytest.raises(GalleryError, match="Open it again with the new plan"):
            ask()


def test_reindexing_needs_a_gallery(other_plan: Path):
    with pytest.raises(GalleryError, match="There is no gallery"):
        Searcher.reindex(other_plan)


# --- the command line -------------------------------------------------------------------


def test_the_command_line_groups_and_thins(tracked: Searcher, plan: Path, capsys):
    tracked.close()
    assert main(["query", str(plan), "coat", "--group-by", "pid", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    assert main(["query", str(plan), "coat", "--distinct", "0", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert main(["query", str(plan), "coat", "--distinct", "7"]) == 1
    assert "distinct is a cosine" in capsys.readouterr().err


def test_the_command_line_sets_an_expiry(plan: Path, crops: Path, capsys):
    when = ["--metadata", "time=2020-01-01"]
    assert main(["index", str(plan), str(crops), "--expire-days", "1.5", *when]) == 1
    assert "left out 12 (12 picture whose time is over)" in capsys.readouterr().out
    assert main(["index", str(plan), str(crops), "--expire-days", "0"]) == 1
    assert "expire_after" in capsys.readouterr().err


def test_the_command_line_reindexes(plan: Path, other_plan: Path, crops: Path, tmp_path, capsys):
    mine = Path(shutil.copytree(crops, tmp_path / "crops"))
    gallery = str(plan.with_suffix(".gallery"))
    assert main(["index", str(plan), str(mine)]) == 0
    (mine / "03.jpg").rename(tmp_path / "away.jpg")
    again = ["index", str(other_plan), "--gallery", gallery, "--reindex", str(mine)]
    assert main(again) == 1
    out, err = capsys.readouterr()
    assert "cannot read 1 pictures" in out
    assert "03.jpg" in out
    assert "still holds the vectors of its old plan" in err
    assert main(["query", str(plan), "coat"]) == 0
    (tmp_path / "away.jpg").rename(mine / "03.jpg")
    shutil.copy(mine / "00.jpg", mine / "new.jpg")
    assert main(again) == 0
    out = capsys.readouterr().out
    assert "encoded 1 pictures" in out
    assert "added 1 pictures" in out
    assert "skipped 12" in out
    assert main(["query", str(other_plan), "coat", "--gallery", gallery]) == 0
    assert main(again) == 0  # nothing left to do
    assert "encoded 0 pictures" in capsys.readouterr().out
