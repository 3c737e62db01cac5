from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import finegrain
from finegrain import doctor
from finegrain.doctor import examine, machine_report
from finegrain.errors import GalleryError, PlanError
from finegrain.gallery import Gallery
from finegrain.plan import Plan


def test_the_report_names_the_machine_and_every_dependency():
    report = machine_report()
    assert report.startswith(f"finegrain {finegrain.__version__}, Python 3.")
    rows = {tuple(line.split()[:2]) for line in report.splitlines()}
    assert {("train", "torch"), ("gpu", "onnxruntime-gpu"), ("dev", "pytest")} <= rows
    assert any(line.split()[:1] == ["onnxruntime"] for line in report.splitlines())


def test_what_is_missing_or_too_old_is_marked(monkeypatch):
    def installed(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return {"finegrain": "0.1.0", "numpy": "1.0"}.get(name, "999.0")

    monkeypatch.setattr(doctor, "version", installed)
    found = {name: line for line in machine_report().splitlines() for name in line.split()[:2]}
    assert found["torch"].split()[-1] == "no"
    assert found["numpy"].endswith("1.0 (!)")
    assert found["pillow"].endswith("999.0")


def test_a_sound_plan_says_what_it_is(tiny_plan):
    shown = examine(tiny_plan)
    assert shown.startswith(f"{tiny_plan}: sound; Plan(")
    assert Plan(tiny_plan).manifest.fingerprint[:12] in shown
    assert "parity: not stated" in shown


def test_a_damaged_plan_is_not_sound(tiny_plan, tmp_path):
    path = Path(shutil.copy(tiny_plan, tmp_path / "model.plan"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PlanError, match="damaged"):
        examine(path)


def test_a_sound_gallery_says_what_it_holds(tmp_path):
    path = tmp_path / "crops.gallery"
    with Gallery(path, dim=2) as gallery:
        gallery.add([[1.0, 0.0]], ["1.jpg"])
    assert examine(path).startswith(f"{path}: sound; Gallery(")
    assert "1 pictures, dim=2" in examine(path)


@pytest.mark.parametrize(("name", "error"), [("x.plan", PlanError), ("x.gallery", GalleryError)])
def test_what_is_missing_is_not_sound_and_not_made(tmp_path, name, error):
    with pytest.raises(error, match="no"):
        examine(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_damaged_gallery_is_not_sound_and_stays(tmp_path):
    path = tmp_path / "x.gallery"
    path.write_bytes(b"no gallery " * 100)
    with pytest.raises(GalleryError, match="not a database"):
        examine(path)
    assert path.read_bytes() == b"no gallery " * 100
