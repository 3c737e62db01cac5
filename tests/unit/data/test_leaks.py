from __future__ import annotations

import json
import shutil

import pytest
from fixtures.person_layouts import write_fixture

from finegrain.data.leaks import find_leaks
from finegrain.data.person_datasets import CUHK_PEDES, ICFG_PEDES, RSTPREID
from finegrain.data.survey import survey
from finegrain.errors import DataError


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Three datasets of different people."""
    folder = tmp_path_factory.mktemp("sets")
    datasets = (CUHK_PEDES, ICFG_PEDES, RSTPREID)
    return {
        dataset.name: write_fixture(dataset, folder / dataset.name, identities=3, seed=seed)
        for seed, dataset in enumerate(datasets)
    }


@pytest.fixture
def icfg(roots, tmp_path):
    return shutil.copytree(roots["icfg_pedes"], tmp_path / "icfg")


def pictures(root, dataset, split):
    return [sample.image for sample in survey(root, dataset).splits[split].samples]


def leaks(*pairs):
    return find_leaks([survey(root, dataset) for dataset, root in pairs], progress=False)


def test_datasets_of_different_people_do_not_leak(roots):
    result = leaks((CUHK_PEDES, roots["cuhk_pedes"]), (ICFG_PEDES, roots["icfg_pedes"]))
    assert (result.sharing, result.warnings, result.faults) == ((), (), ())
    # Two training splits, and three splits to evaluate on.
    assert str(result) == "no equal file in 6 pairs of a training and a judged split"


def test_a_file_in_training_and_in_test_is_detected_under_any_name(roots, icfg):
    trained = pictures(icfg, ICFG_PEDES, "train")[0]
    judged = pictures(roots["cuhk_pedes"], CUHK_PEDES, "test")[:2]
    shutil.copy(judged[1], trained)
    result = leaks((ICFG_PEDES, icfg), (CUHK_PEDES, roots["cuhk_pedes"]))
    (leak,) = result.sharing
    assert (leak.trained, leak.judged) == ("ICFG-PEDES train", "CUHK-PEDES test")
    assert (leak.pictures, leak.of, leak.identities) == (1, 3, 1)
    assert leak.example == (trained, judged[1])
    assert result.faults == ("CUHK-PEDES test shares 1 of 3 pictures with ICFG-PEDES train",)
    assert f"{trained} = {judged[1]}" in str(result)


def test_two_evaluation_splits_may_share_files(roots, icfg):
    judged = pictures(roots["cuhk_pedes"], CUHK_PEDES, "val")[0]
    shutil.copy(judged, pictures(icfg, ICFG_PEDES, "test")[0])
    assert leaks((ICFG_PEDES, icfg), (CUHK_PEDES, roots["cuhk_pedes"])).sharing == ()


def test_a_leak_inside_one_dataset_is_detected(icfg):
    shutil.copy(pictures(icfg, ICFG_PEDES, "train")[0], pictures(icfg, ICFG_PEDES, "test")[0])
    (leak,) = leaks((ICFG_PEDES, icfg)).sharing
    assert (leak.trained, leak.judged, leak.pictures) == ("ICFG-PEDES train", "ICFG-PEDES test", 1)


def test_two_copies_of_one_dataset_leak(roots, icfg):
    result = leaks((ICFG_PEDES, roots["icfg_pedes"]), (ICFG_PEDES, icfg))
    assert (result.sharing, result.warnings) == ((), ())


def test_datasets_made_of_the_same_pictures_are_named(roots):
    (warning,) = leaks((ICFG_PEDES, roots["icfg_pedes"]), (RSTPREID, roots["rstpreid"])).warnings
    assert warning.startswith("ICFG-PEDES and RSTPReid are both made of MSMT17's pictures")


def test_a_missing_dataset_does_not_leak(roots, tmp_path):
    result = leaks((ICFG_PEDES, roots["icfg_pedes"]), (CUHK_PEDES, tmp_path / "nowhere"))
    assert (result.compared, result.sharing) == (1, ())


def test_an_unreadable_picture_is_an_error(icfg):
    surveyed = survey(icfg, ICFG_PEDES)
    surveyed.splits["train"].samples[0].image.unlink()
    with pytest.raises(DataError, match=r"expected a readable picture, got .*No such file"):
        find_leaks([surveyed], progress=False)


def test_pictures_are_compared_by_bytes_and_not_by_name(roots, tmp_path):
    """Equal names in two datasets are not a leak."""
    records = [
        {"split": split, "captions": ["a man"], "file_path": f"{split}.jpg", "id": number}
        for number, split in enumerate(("train", "test"))
    ]
    for name, bytes_ in (("a", b"one"), ("b", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "reid_raw.json").write_text(json.dumps(records))
        for record in records:
            content = bytes_ + record["split"].encode()
            (tmp_path / name / record["file_path"]).write_bytes(content)
    assert leaks((CUHK_PEDES, tmp_path / "a"), (CUHK_PEDES, tmp_path / "b")).sharing == ()
