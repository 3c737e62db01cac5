from __future__ import annotations

import json

import pytest
from fixtures.shop_layouts import write_deepfashion_multimodal

from finegrain.data.deepfashion_multimodal import (
    DEEPFASHION_MULTIMODAL,
    read_deepfashion_multimodal,
)
from finegrain.errors import DataError


@pytest.fixture
def copy(tmp_path):
    return write_deepfashion_multimodal(tmp_path, products=20, views=2)


def by_name(splits):
    return {sample.image.name: sample for split in splits.values() for sample in split.samples}


def test_views_share_a_pid_and_no_product_is_in_two_splits(copy):
    splits = read_deepfashion_multimodal(copy)
    assert sum(map(len, splits.values())) == 40
    assert len(splits["train"]) > 20
    pids = [{sample.pid for sample in split.samples} for split in splits.values()]
    assert sum(map(len, pids)) == len(set.union(*pids)) == 20
    assert not any(split.problems for split in splits.values())


def test_names_and_labels_become_attributes(copy):
    (copy / "images" / "MEN-Denim-id_00000080-01_7_additional.jpg").touch()
    captions = {"MEN-Denim-id_00000080-01_7_additional.jpg": " Blue jeans. "}
    (copy / "captions.json").write_text(json.dumps(captions))
    (copy / "labels" / "shape" / "shape_anno_all.txt").write_text(
        "MEN-Denim-id_00000080-01_7_additional.jpg 3 3 0 1 0 0 0 0 1 5 2 1\n"
    )
    (copy / "labels" / "texture" / "fabric_ann.txt").write_text(
        "MEN-Denim-id_00000080-01_7_additional.jpg 1 0 7\n"
    )
    (sample,) = by_name(read_deepfashion_multimodal(copy)).values()
    assert sample.captions == ("Blue jeans.",)
    assert sample.metadata == {
        "product_id": "MEN-Denim-00000080-01", "gender": "men", "category": "Denim",
        "subcategory": "men denim", "view": "additional", "sleeves": "long",
        "lower_length": "long", "socks": "no", "hat": "yes", "glasses": "no", "neckwear": "no",
        "wristwear": "no", "ring": "no", "waist_accessory": "belt", "neckline": "lapel",
        "cardigan": None, "covers_navel": "yes", "upper_material": "cotton",
        "lower_material": "denim", "outer_material": None,
    }  # fmt: skip


def test_bad_labels_captions_and_missing_pictures_are_problems(copy):
    before = by_name(read_deepfashion_multimodal(copy))
    gone, blank, *_ = before
    captions = json.loads((copy / "captions.json").read_text())
    captions |= {blank: "", "unknown.jpg": "a coat", "../x.jpg": "a coat"}
    (copy / "captions.json").write_text(json.dumps(captions))
    (copy / "images" / gone).unlink()
    with (copy / "labels" / "texture" / "fabric_ann.txt").open("a") as stream:
        stream.write("x.jpg 1 2\nx.jpg 1 2 8\n\nx.jpg 1 2 ²\n")
    splits = read_deepfashion_multimodal(copy)
    result = {p.where: p.why for split in splits.values() for p in split.problems}
    assert len(by_name(splits)) == 38
    assert result.pop("fabric_ann.txt:41") == "has 2 labels, expected 3"
    assert result.pop("fabric_ann.txt:42") == "expected outer_material from 0 to 7, got '8'"
    assert result.pop("fabric_ann.txt:44") == "expected outer_material from 0 to 7, got '²'"
    assert set(result) == {f"captions.json {name!r}" for name in
                          (gone, blank, "unknown.jpg", "../x.jpg")}  # fmt: skip


def test_labels_are_optional(copy):
    for file in (copy / "labels").rglob("*.txt"):
        file.unlink()
    sample = read_deepfashion_multimodal(copy)["train"].samples[0]
    assert set(sample.metadata) == {"product_id", "gender", "category", "subcategory", "view"}


@pytest.mark.parametrize("content", ["[]", "{broken", "{}"])
def test_captions_in_another_format_are_refused(copy, content):
    (copy / "captions.json").write_text(content)
    with pytest.raises(DataError, match="expected "):
        read_deepfashion_multimodal(copy)


def test_a_missing_copy_is_an_error_and_an_incomplete_one_is_reported(copy, tmp_path):
    with pytest.raises(DataError, match="How to get it: https"):
        read_deepfashion_multimodal(tmp_path / "nowhere")
    (difference,) = DEEPFASHION_MULTIMODAL.differences(read_deepfashion_multimodal(copy))
    assert difference.why == "has 40 pictures where 44096 are published"
