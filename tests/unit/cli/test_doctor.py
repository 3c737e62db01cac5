from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from fixtures.person_layouts import write_fixture
from fixtures.shop_layouts import write_fashion_iq

import finegrain
from finegrain.cli import doctor
from finegrain.cli.doctor import (
    examine,
    examine_datasets,
    machine_report,
    processor_report,
    suggested_profile,
)
from finegrain.cli.parser import main
from finegrain.data.count_survey import CountSurvey
from finegrain.data.fashion_iq import FASHION_IQ
from finegrain.data.leaks import Leaks
from finegrain.data.person_datasets import CUHK_PEDES, ICFG_PEDES, RSTPREID, Counts
from finegrain.data.person_json import read_people
from finegrain.data.survey import Survey
from finegrain.errors import GalleryError, PlanError
from finegrain.exporters import load_profile
from finegrain.gallery import Gallery
from finegrain.plan import Plan
from finegrain.runtime.instructions import Processor, this_processor

EXPORT = Path(__file__).parents[3] / "export"


def test_the_report_names_the_machine_and_every_dependency():
    report = machine_report()
    assert report.startswith(f"finegrain {finegrain.__version__}, Python 3.")
    rows = {tuple(line.split()[:2]) for line in report.splitlines()}
    assert {("train", "torch"), ("gpu", "onnxruntime-gpu"), ("dev", "pytest")} <= rows
    assert any(line.split()[:1] == ["onnxruntime"] for line in report.splitlines())


def test_the_report_names_the_processors_instruction_sets():
    report = machine_report()
    processor = this_processor()
    assert f"processor: {processor.name}, {processor.machine}" in report
    for name in processor.instructions:
        assert name in report.partition("instruction sets: ")[2].partition("\n")[0].split(", ")
    assert "export profile for this machine: " in report


@pytest.mark.parametrize(
    ("machine", "instructions", "profile", "why"),
    [
        ("x86_64", ("AVX2",), "cpu_int8", "int8 products by AVX2"),
        ("x86_64", ("AVX2", "AVX-512"), "cpu_int8", "by AVX-512"),
        ("amd64", ("AVX2", "VNNI"), "cpu_int8", "by VNNI"),
        ("x86_64", ("AVX2", "AVX-512", "VNNI", "AMX"), "cpu_int8", "by AMX"),
        ("x86_64", (), "onnx_fp32", "slow without AVX2"),
        ("aarch64", ("NEON", "dotprod"), "cpu_int8", "by dotprod"),
        ("arm64", ("NEON", "dotprod", "i8mm"), "cpu_int8", "by i8mm"),
        ("aarch64", ("NEON",), "onnx_fp32", "slow without dotprod"),
        ("riscv64", (), "onnx_fp32", ""),
    ],
)
def test_the_profile_follows_the_instruction_sets(machine, instructions, profile, why):
    processor = Processor("some", machine, instructions)
    suggested, reason = suggested_profile(processor)
    assert suggested == profile
    assert why in reason
    assert profile in processor_report(processor)
    assert load_profile(EXPORT / f"{profile}.py").name == profile


@pytest.mark.parametrize("saturates", [False, True])
def test_the_report_says_whether_products_saturate(monkeypatch, saturates):
    monkeypatch.setattr(doctor, "products_saturate", lambda: saturates)
    report = processor_report(Processor("some", "x86_64", ("AVX2",)))
    assert ("saturate; plans of finegrain 0.1" in report) == saturates
    assert ("are exact for any weights" in report) != saturates


def test_missing_and_outdated_packages_are_marked(monkeypatch):
    def installed(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return {"finegrain": "0.1.0", "numpy": "1.0"}.get(name, "999.0")

    monkeypatch.setattr(doctor, "version", installed)
    result = {name: line for line in machine_report().splitlines() for name in line.split()[:2]}
    assert result["torch"].split()[-1] == "no"
    assert result["numpy"].endswith("1.0 (!)")
    assert result["pillow"].endswith("999.0")


def test_the_report_describes_a_valid_plan(tiny_plan):
    shown = examine(tiny_plan)
    assert shown.startswith(f"{tiny_plan}: valid; Plan(")
    assert Plan(tiny_plan).manifest.fingerprint[:12] in shown
    assert "parity: not stated" in shown


def test_a_damaged_plan_is_invalid(tiny_plan, tmp_path):
    path = Path(shutil.copy(tiny_plan, tmp_path / "model.plan"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PlanError, match="damaged"):
        examine(path)


def test_the_report_describes_a_valid_gallery(tmp_path):
    path = tmp_path / "crops.gallery"
    with Gallery(path, dim=2) as gallery:
        gallery.add([[1.0, 0.0]], ["1.jpg"])
    assert examine(path).startswith(f"{path}: valid; ")
    assert "1 pictures, dim=2" in examine(path)


@pytest.mark.parametrize("name", ["copy", "crops.gallery.bak", "2026-11-28.backup"])
def test_a_gallery_is_recognised_whatever_its_name_ends_in(tmp_path: Path, name: str):
    with Gallery(tmp_path / "crops.gallery", dim=2) as gallery:
        gallery.add([[1.0, 0.0]], ["1.jpg"])
        gallery.backup(tmp_path / name)
    assert f"{name}: valid; 1 pictures" in examine(tmp_path / name)
    (tmp_path / f"{name}.vectors").unlink()
    with pytest.raises(GalleryError, match=r"\.vectors, which holds the vectors of .* is missing"):
        examine(tmp_path / name)


def test_the_file_of_vectors_alone_is_named(tmp_path: Path):
    with Gallery(tmp_path / "crops.gallery", dim=2) as gallery:
        gallery.add([[1.0, 0.0]], ["1.jpg"])
    with pytest.raises(GalleryError, match=r"holds the vectors of a gallery.*crops\.gallery"):
        examine(tmp_path / "crops.gallery.vectors")
    (tmp_path / "crops.gallery").unlink()
    for create in (False, True):
        with pytest.raises(GalleryError, match=r"but the vectors of one.*crops\.gallery\.vectors"):
            Gallery(tmp_path / "crops.gallery", dim=2, create=create)
    assert [path.name for path in tmp_path.iterdir()] == ["crops.gallery.vectors"]


@pytest.mark.parametrize(("name", "error"), [("x.plan", PlanError), ("x.gallery", GalleryError)])
def test_a_missing_file_is_invalid_and_is_not_created(tmp_path, name, error):
    with pytest.raises(error, match="no"):
        examine(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_damaged_gallery_is_invalid_and_is_not_changed(tmp_path):
    path = tmp_path / "x.gallery"
    path.write_bytes(b"no gallery " * 100)
    with pytest.raises(GalleryError, match="not a database"):
        examine(path)
    assert path.read_bytes() == b"no gallery " * 100


# --- datasets ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Name and root of copies of three datasets."""
    folder = tmp_path_factory.mktemp("copies")
    datasets = (CUHK_PEDES, ICFG_PEDES, RSTPREID)
    return {
        dataset.name: write_fixture(dataset, folder / dataset.title, identities=3, seed=seed)
        for seed, dataset in enumerate(datasets)
    }


@pytest.fixture
def as_published(copies, monkeypatch):
    """Set the published sizes to those of the copies."""
    datasets = []
    for dataset in (CUHK_PEDES, ICFG_PEDES, RSTPREID):
        splits = read_people(copies[dataset.name], dataset)
        sizes = {name: Counts.of([split]) for name, split in splits.items()}
        datasets.append(replace(dataset, published=sizes))
    monkeypatch.setattr("finegrain.data.person_datasets.PERSON_DATASETS", tuple(datasets))
    return {dataset.name: dataset for dataset in datasets}


def test_several_datasets_are_surveyed_and_compared(copies):
    one = [(ICFG_PEDES, copies["icfg_pedes"])]
    (result,) = examine_datasets(one, progress=False)
    assert isinstance(result, Survey)
    two = [*one, (RSTPREID, copies["rstpreid"])]
    assert [type(result) for result in examine_datasets(two, progress=False)] == [
        Survey,
        Survey,
        Leaks,
    ]


def test_doctor_data_accepts_a_valid_copy(copies, as_published, capsys):
    assert main(["doctor", "data", "cuhk_pedes", str(copies["cuhk_pedes"])]) == 0
    shown, said = capsys.readouterr()
    assert said == ""
    assert shown.startswith(f"CUHK-PEDES in {copies['cuhk_pedes']}\n")
    assert shown.rstrip().endswith("valid")
    assert "onnxruntime" not in shown


def test_doctor_data_fails_for_a_copy_of_another_size(copies, capsys):
    assert main(["doctor", "data", "rstpreid", str(copies["rstpreid"])]) == 1
    shown, said = capsys.readouterr()
    assert "INVALID: RSTPReid test: has 1 identities where 200 are published, 5 pictures" in shown
    assert said == "finegrain: this data would falsify a result; see what is INVALID above\n"


def test_doctor_data_compares_several_datasets(copies, as_published, tmp_path, capsys):
    roots = ["icfg_pedes", str(copies["icfg_pedes"]), "rstpreid", str(copies["rstpreid"])]
    assert main(["doctor", "data", *roots]) == 0
    assert "both made of MSMT17's pictures" in capsys.readouterr().out
    icfg = Path(shutil.copytree(copies["icfg_pedes"], tmp_path / "icfg"))
    trained = read_people(icfg, ICFG_PEDES)["train"].samples[0].image
    judged = read_people(copies["rstpreid"], RSTPREID)["test"].samples[0].image
    shutil.copy(judged, trained)
    roots[1] = str(icfg)
    assert main(["doctor", "data", *roots]) == 1
    shown, said = capsys.readouterr()
    assert "INVALID: a model would be judged on what it was trained on" in shown
    assert said.endswith("would falsify a result; see what is INVALID above\n")


def test_doctor_data_surveys_fashion_datasets(tmp_path, monkeypatch, capsys):
    root = write_fashion_iq(tmp_path, triplets=2)
    whole = replace(FASHION_IQ, published=dict(FASHION_IQ.count(FASHION_IQ.read(root))))
    monkeypatch.setattr(doctor, "COUNTED_DATASETS", (whole,))
    assert main(["doctor", "data", "fashion_iq", str(root)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("valid")
    monkeypatch.undo()
    assert main(["doctor", "data", "fashion_iq", str(root)]) == 1
    shown, said = capsys.readouterr()
    assert "note: FashionIQ: has 2 train dress triplets where 5985 are published" in shown
    assert "INVALID: FashionIQ: has 2 val shirt triplets where 2038 are published" in shown
    assert said.endswith("would falsify a result; see what is INVALID above\n")


def test_fashion_datasets_are_not_compared_with_people(copies, tmp_path):
    root = write_fashion_iq(tmp_path, triplets=1)
    asked = [(ICFG_PEDES, copies["icfg_pedes"]), (FASHION_IQ, root)]
    result = list(examine_datasets(asked, progress=False))
    assert [type(finding) for finding in result] == [Survey, CountSurvey]


def test_doctor_data_tells_how_to_get_a_missing_dataset(tmp_path, capsys):
    assert main(["doctor", "data", "ufine6926", str(tmp_path / "nowhere")]) == 1
    assert "How to get it: Sign the licence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "expected finegrain doctor data NAME ROOT"),
        (
            ["cuhk_pedes"],
            "NAME: cuhk_pedes, icfg_pedes, rstpreid, ufine6926, fashion_gen, fashion_iq",
        ),
        (["cuhk_pedes", "a", "rstpreid"], "expected finegrain doctor data NAME ROOT"),
        (["market", "a"], "there is no dataset 'market' to examine; expected one of cuhk_pedes, "),
    ],
)
def test_wrong_arguments_of_doctor_data_are_a_one_line_error(capsys, words, why):
    assert main(["doctor", "data", *words]) == 1
    shown, said = capsys.readouterr()
    assert (shown, said.count("\n")) == ("", 1)
    assert why in said
