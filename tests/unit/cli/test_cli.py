from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import finegrain
from finegrain.cli.parser import main

VERBS = (
    "pull", "train", "evaluate", "report", "export", "convert", "index", "watch", "embed",
    "query", "moments", "calibrate", "gallery", "serve", "browse", "keys", "audit", "alerts",
    "demo", "doctor", "completion", "recipe",
)  # fmt: skip
NUM_CROPS = 12


@pytest.fixture(scope="module")
def indexed(tiny_plan, crops, tmp_path_factory) -> Path:
    """A plan with a gallery beside it. Shared: do not change the gallery."""
    plan = Path(shutil.copy(tiny_plan, tmp_path_factory.mktemp("indexed") / "model.plan"))
    assert main(["index", str(plan), str(crops), "--metadata", "camera=gate-3"]) == 0
    return plan


def refused(capsys, *argv: object) -> str:
    """Checks that a command fails with one line on stderr, and returns the line."""
    assert main([str(word) for word in argv]) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("finegrain: ")
    assert "Traceback" not in shown.out
    return lines[0]


# --- help -------------------------------------------------------------------------------


def test_the_verbs_are_pinned(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    verbs = capsys.readouterr().out.partition("VERB\n")[2].partition("\noptions:")[0]
    # A command starts after four spaces, and the rest of its explanation is indented further.
    assert tuple(re.findall(r"^    (\w+)", verbs, re.MULTILINE)) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_an_example(capsys, verb):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert f"  finegrain {verb}" in shown.partition("examples:")[2]


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.strip() == finegrain.__version__


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["fly"],
        ["query", "model.plan", "coat", "-k", "many"],
        ["index", "model.plan", "crops", "--metadata", "camera"],
        ["index", "model.plan", "crops", "--metadata", "=3"],
        ["index", "model.plan", "crops", "--metadata", "tags=[1, 2]"],
        ["recipe", "bake"],
    ],
)
def test_a_wrong_call_shows_the_usage(capsys, argv):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: finegrain" in capsys.readouterr().err


# --- index and query --------------------------------------------------------------------


def test_an_indexed_folder_is_searched(plan, crops, capsys):
    assert main(["index", str(plan), str(crops), "--metadata", "camera=gate-3"]) == 0
    assert "added 12 pictures" in capsys.readouterr().out
    assert main(["index", str(plan), str(crops)]) == 0
    assert "skipped 12" in capsys.readouterr().out
    assert main(["query", str(plan), "woman in red coat", "-k", "3"]) == 0
    shown = capsys.readouterr().out
    assert "3 matches for 'woman in red coat'" in shown
    assert shown.count("gate-3") == 3


def test_several_folders_and_files_are_indexed_at_once(plan, crops, tmp_path, capsys):
    gallery = tmp_path / "elsewhere.gallery"
    one = Path(shutil.copy(crops / "00.jpg", tmp_path / "one.jpg"))
    assert main(["index", str(plan), str(crops), str(one), "--gallery", str(gallery)]) == 0
    assert "13 pictures" in capsys.readouterr().out
    assert gallery.exists()
    assert not plan.with_suffix(".gallery").exists()


def test_metadata_values_that_look_like_numbers_are_numbers(plan, crops, capsys):
    pairs = ["floor=2", "open=true", "price=9.5", "note=a=b", "code=[x"]
    options = [word for pair in pairs for word in ("--metadata", pair)]
    assert main(["index", str(plan), str(crops), *options]) == 0
    capsys.readouterr()
    where = "floor = 2 and open = true and price < 10 and note = 'a=b' and code = '[x'"
    assert main(["query", str(plan), "coat", "--where", where, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 10


def test_a_broken_picture_is_named_and_the_rest_is_indexed(plan, crops, tmp_path, capsys):
    folder = Path(shutil.copytree(crops, tmp_path / "mixed"))
    (folder / "00_broken.jpg").write_bytes(b"broken")
    assert main(["index", str(plan), str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "added 12 pictures" in shown
    assert "00_broken.jpg: not a picture" in shown


def test_a_catalogue_with_an_invalid_row_is_indexed(plan, crops, tmp_path, capsys):
    table = tmp_path / "catalog.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "title", "price", "product"])
        rows.writerow([crops / "00.jpg", "beige midi dress", 79.9, 7])
        rows.writerow([crops / "missing.jpg", "lost coat", 10, 8])
        rows.writerow([crops / "01.jpg", "", 20, 9])
        rows.writerow([crops / "02.jpg", "red coat", 120, 10])
    shutil.copytree(crops, tmp_path / "images")
    table.write_text(table.read_text().replace(str(crops), "images"))
    columns = ["--image-column", "file", "--caption-column", "title", "--pid-column", "product"]
    assert main(["index", str(plan), str(table), *columns]) == 1
    assert "expected at most 10% to be left out, got 2 of 4" in capsys.readouterr().err
    columns += ["--max-bad-share", "0.5"]
    assert main(["index", str(plan), str(table), *columns]) == 0
    shown = capsys.readouterr()
    assert "added 2 pictures" in shown.out
    assert "left out 2 (" in shown.out
    assert "missing.jpg" in shown.out
    assert main(["query", str(plan), "coat", "--where", "price > 100", "--json"]) == 0
    (match,) = json.loads(capsys.readouterr().out)
    assert match["image"].endswith("02.jpg")
    assert match["metadata"] == {"caption": "red coat", "price": 120, "product": 10}


def test_json_output_is_valid_for_any_query(indexed, capsys):
    assert main(["query", str(indexed), '外套 "quoted"', "-k", "2", "--json"]) == 0
    matches = json.loads(capsys.readouterr().out)
    assert [match["rank"] for match in matches] == [1, 2]
    assert list(matches[0]) == [
        "rank", "score", "id", "image", "pid", "camera", "time", "track", "metadata"
    ]  # fmt: skip


def test_the_best_match_of_a_picture_is_itself(indexed, crops, capsys):
    assert main(["query", str(indexed), "--image", str(crops / "05.jpg"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["image"] == str((crops / "05.jpg").resolve())


def test_a_grid_is_written(indexed, tmp_path, capsys):
    grid = tmp_path / "matches.png"
    assert main(["query", str(indexed), "coat", "--grid", str(grid), "-k", "4"]) == 0
    with Image.open(grid) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
    assert str(grid) in capsys.readouterr().err


def test_a_filter_without_matches_is_not_an_error(indexed, capsys):
    assert main(["query", str(indexed), "coat", "--where", "camera = 'gate-9'"]) == 0
    assert "0 matches" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([""], "the query is empty"),
        (["coat", "-k", "0"], "k is a whole number"),
        (["coat", "--grid", "matches.pdf"], "ends in .png or .jpg"),
        (["--image", "nowhere.jpg"], "nowhere.jpg"),
        (["coat", "--gallery", "nowhere.gallery"], "no gallery at nowhere.gallery"),
    ],
)
def test_a_wrong_query_is_a_one_line_error(indexed, capsys, argv, why):
    assert why in refused(capsys, "query", indexed, *argv)


def test_the_error_of_a_wrong_filter_marks_the_position(indexed, capsys):
    assert main(["query", str(indexed), "coat", "--where", "pid = 3 and colour = 'red'"]) == 1
    message, expression, mark = capsys.readouterr().err.splitlines()
    assert "unknown column 'colour'" in message
    assert expression[mark.index("^") :].startswith("colour")


def test_a_missing_plan_is_a_one_line_error(tmp_path, capsys):
    assert "there is no plan at" in refused(capsys, "query", tmp_path / "x.plan", "coat")


def test_a_damaged_plan_is_a_one_line_error(plan, capsys):
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)
    assert "damaged" in refused(capsys, "index", plan, plan.parent)


def test_a_missing_folder_is_a_one_line_error(plan, capsys):
    assert "no picture or folder at nowhere" in refused(capsys, "index", plan, "nowhere")


# --- the other verbs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["train", "nowhere.py"], "there is no recipe at nowhere.py"),
        (["evaluate", "nowhere.plan"], "there is no plan at nowhere.plan"),
        (["export", "nowhere"], "nowhere"),
        (["recipe", "show"], "takes one recipe"),
        (["recipe", "diff", "nowhere.py", "nowhere.py"], "there is no recipe"),
    ],
)
def test_a_missing_file_is_a_one_line_error(tmp_path, monkeypatch, capsys, argv, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "onnx_fp32.py").write_text(
        "from finegrain import ExportProfile\n"
        "def profile():\n    return ExportProfile(name='onnx_fp32')\n"
    )
    assert why in refused(capsys, *argv)


def test_recipes_are_listed_shown_and_compared(tiny_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", "list"]) == 0
    assert "irra_cuhk_pedes" in capsys.readouterr().out
    path = tmp_path / "recipe.json"
    path.write_text(tiny_recipe.to_json())
    assert main(["recipe", "show", str(path), "--set", "seed=3"]) == 0
    changed = capsys.readouterr().out
    assert json.loads(changed)["seed"] == 3
    (tmp_path / "changed.json").write_text(changed)
    assert main(["recipe", "diff", str(path), "changed.json"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["seed", "0", "3"]


def test_the_doctor_examines_plans_and_galleries(indexed, tmp_path, capsys):
    gallery = indexed.with_suffix(".gallery")
    assert main(["doctor", str(indexed), str(gallery), str(tmp_path / "x.plan")]) == 1
    shown, said = capsys.readouterr()
    assert said.startswith("finegrain: invalid: ")
    assert f"{indexed}: valid" in shown
    assert f"{gallery}: valid" in shown
    assert "x.plan: INVALID; there is no plan at" in shown


def test_an_interruption_exits_with_the_status_of_the_shell(indexed, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("finegrain.search.searcher.Searcher.query", interrupted)
    assert main(["query", str(indexed), "coat"]) == 130
    assert capsys.readouterr().err == "finegrain: stopped\n"


def test_the_command_line_runs_in_its_own_process(indexed):
    command = [sys.executable, "-m", "finegrain", "query", str(indexed)]
    done = subprocess.run([*command, "coat", "--json"], capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)) == 10
    failed = subprocess.run([*command, " "], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("finegrain: the query is empty")
