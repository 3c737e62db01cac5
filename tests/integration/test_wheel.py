"""The wheel, installed in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from fixtures.onnx_pairs import write_immich
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDERS = ("finegrain", "recipes", "export", "benchmarks")

pytestmark = pytest.mark.slow

BUILD = """
from setuptools import build_meta
build_meta.build_wheel("dist")
build_meta.build_sdist("dist")
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The wheel and the sdist, built from a copy of the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*ROOT.glob("*.*"), ROOT / "LICENSE", ROOT / "Makefile"):
        if file.is_file():
            shutil.copy(file, copy)
    (copy / "dist").mkdir()
    run([sys.executable, "-c", BUILD], copy)
    return copy / "dist"


@pytest.fixture(scope="module")
def python(dist, tmp_path_factory):
    """A new environment with the wheel; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=os.name != "nt")
    scripts = "Scripts" if os.name == "nt" else "bin"
    python = folder / scripts / "python"
    packages = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder)
    Path(packages.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    wheel = next(dist.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    # Without --ignore-installed, pip would regard the finegrain of the tests as this one.
    run([*pip, "--no-index", "--ignore-installed", str(wheel)], folder)
    return python


def run(command, cwd, **variables):
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment = inherited | variables
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names(folder):
    return {path.name for path in (ROOT / folder).glob("*.py")}


def test_the_wheel_has_the_recipes_and_profiles_and_nothing_beside_the_package(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        members = wheel.namelist()
    for folder in ("recipes", "export"):
        inside = f"finegrain/_{folder}/"
        packed = {m.removeprefix(inside) for m in members if m.startswith(inside)}
        assert names(folder) <= packed
    assert "finegrain/_results/demo.json" in members
    assert {m.partition("/")[0].partition("-")[0] for m in members} == {"finegrain"}


def test_a_wheel_can_be_built_from_the_sdist(dist, tmp_path):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    for name in ("recipes", "export"):
        assert names(name) <= {path.name for path in (folder / name).iterdir()}
    (folder / "dist").mkdir()
    run([sys.executable, "-c", BUILD], folder)
    ours, theirs = (
        zipfile.ZipFile(next(place.glob("*.whl"))).namelist() for place in (dist, folder / "dist")
    )
    assert sorted(ours) == sorted(theirs)


def test_train_export_and_query_in_an_empty_folder(python, tmp_path):
    def finegrain(*arguments):
        return run([python, "-m", "finegrain", *arguments], tmp_path)

    where = run([python, "-c", "import finegrain; print(finegrain.__file__)"], tmp_path)
    assert ROOT not in Path(where).parents
    assert "irra_cuhk_pedes" in finegrain("recipe", "list")
    assert '"irra_cuhk_pedes"' in finegrain("recipe", "show", "irra_cuhk_pedes")
    finegrain("train", "irra_cuhk_pedes", "--tiny", "-o", "runs/irra")
    assert "cosine" in finegrain("export", "runs/irra", "onnx_fp32", "-o", "model.plan")
    # The demo itself takes minutes.
    code = "from finegrain.cli import demo; print(demo._reference(fast=True))"
    assert "'draw people':" in run([python, "-c", code], tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("red", "green", "blue"):
        Image.new("RGB", (60, 120), name).save(tmp_path / f"photos/{name}.png")
    finegrain("index", "model.plan", "photos")
    assert "red.png" in finegrain("query", "model.plan", "woman in red coat", "-k", "3")


def test_the_quick_start_with_a_model_of_the_hub(python, hub, crops, tmp_path):
    """The commands of the README, with random weights under a name that `pull` lists."""
    write_immich(tmp_path / "pair")
    hub.add_folder("immich-app/ViT-B-16__openai", tmp_path / "pair")
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}

    def finegrain(*arguments):
        # As after `pip install "finegrain[pull]"`, without PyTorch.
        code = "import sys; sys.modules['torch'] = None; from finegrain.__main__ import main; "
        command = [python, "-c", f"{code} raise SystemExit(main())", *map(str, arguments)]
        return run(command, tmp_path, **variables)

    assert "clip-vit-b16" in finegrain("pull")
    assert "licence: mit" in finegrain("pull", "clip-vit-b16", "-o", "model.plan")
    assert "finegrain query" in finegrain("index", "model.plan", crops)
    assert "10 matches" in finegrain("query", "model.plan", "red coat", "--grid", "matches.png")
    assert Image.open(tmp_path / "matches.png").width > 100
