"""The scripts and notebooks of examples/ run unchanged."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a script in a new folder in this process, and returns its output."""

    def run(name: str, *arguments: object) -> str:
        script = str(EXAMPLES / name)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(script, run_name="__main__")
        return capsys.readouterr().out

    return run


def test_search_folder_runs(run, plan, crops, tmp_path):
    shown = run("search_folder.py", plan, crops, "woman in red coat")
    assert "added" in shown
    assert "pictures similar to" in shown
    assert (tmp_path / "matches.png").stat().st_size > 1000


def test_search_cameras_runs(run, plan, crops, tmp_path):
    for camera in ("gate-1", "gate-2"):
        shutil.copytree(crops, tmp_path / "crops" / camera)
    arguments = (plan, "crops", "red coat", "--camera", "gate-2", "--hours", 1e5)
    arguments += ("--keep-days", 1e5)
    shown = run("search_cameras.py", *arguments)
    table = shown[shown.index("rank") :]
    assert "gate-2" in table
    assert "gate-1" not in table


def test_follow_catalog_runs(run, plan, crops, tmp_path):
    names = sorted(path.name for path in crops.iterdir())[:4]
    shutil.copytree(crops, tmp_path / "shop")
    table = tmp_path / "shop" / "catalog.csv"

    def write(prices):
        rows = [
            f"sku{i},{name},a coat,{price}"
            for i, (name, price) in enumerate(zip(names, prices, strict=False))
        ]
        table.write_text("sku,image,caption,price\n" + "\n".join(rows) + "\n")

    write([10, 20, 30, 40])
    shown = run("follow_catalog.py", plan, table, "coat", "--below", 25)
    assert {"sku0", "sku1"} <= set(re.findall(r"sku\d", shown))
    assert "sku3" not in shown[shown.index("rank") :]
    write([10, 200, 20])
    shown = run("follow_catalog.py", plan, table, "coat", "--below", 25)
    assert set(re.findall(r"sku\d", shown[shown.index("rank") :])) == {"sku0", "sku2"}


@pytest.mark.slow
def test_train_and_export_and_compare_exports_run(run):
    recipe, profiles = ROOT / "recipes" / "tiny_synthetic.py", ROOT / "export"
    arguments = ("--tiny", "--out", "run", "--profile", profiles / "onnx_fp32.py")
    shown = run("train_and_export.py", recipe, *arguments)
    assert "rank1" in shown
    assert "woman in red coat" in shown
    compared = ("run", profiles / "onnx_fp32.py", profiles / "cpu_int8.py")
    shown = run("compare_exports.py", *compared)
    assert float(shown.split()[-1]) > 0.99


@pytest.mark.parametrize(
    "name", ["search.ipynb", pytest.param("evaluate.ipynb", marks=pytest.mark.slow)]
)
def test_notebooks_run(name, plan, crops, tmp_path, monkeypatch):
    monkeypatch.setenv("PLAN", str(plan))
    monkeypatch.setenv("PICTURES", str(crops))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path[1:2]]))
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    client = NotebookClient(notebook, timeout=None, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    kinds = {
        kind
        for cell in notebook.cells
        for out in cell.get("outputs", ())
        for kind in out.get("data", ())
    }
    assert kinds & {"text/html", "image/png"}


def test_every_example_is_listed_and_run():
    readme = (EXAMPLES / "README.md").read_text()
    tests = Path(__file__).read_text()
    names = sorted(p.name for p in EXAMPLES.iterdir() if p.suffix in (".py", ".ipynb"))
    assert len(names) == 7
    assert [n for n in names if f"({n})" not in readme or n not in tests] == []
