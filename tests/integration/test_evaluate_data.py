"""`finegrain evaluate --data NAME` measures a model on a published dataset."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fixtures.karpathy_layout import FLICKR_RECORDS, write_karpathy

from finegrain.cli.parser import main
from finegrain.plan import Plan, write_plan


@pytest.mark.filterwarnings("ignore:not comparable")
def test_a_plan_on_flickr30k(tiny_plan, tmp_path, capsys):
    root = write_karpathy(tmp_path / "data", "dataset_flickr30k.json", FLICKR_RECORDS)
    metrics = tmp_path / "metrics.json"
    arguments = ["--data", "flickr30k", "--root", str(root), "--split", "test"]
    assert main(["evaluate", str(tiny_plan), *arguments, "--json", str(metrics)]) == 0
    assert json.loads(metrics.read_text())["text_to_image"]["num_queries"] == 1
    assert "test" in capsys.readouterr().out


def test_a_wrong_name_or_a_root_without_a_name_is_refused(tiny_plan, capsys):
    assert main(["evaluate", str(tiny_plan), "--data", "flickr"]) == 1
    assert "Did you mean 'flickr30k'" in capsys.readouterr().err
    assert main(["evaluate", str(tiny_plan), "--root", "data"]) == 1
    assert "--data NAME" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:not comparable")
def test_the_result_of_a_pulled_model_is_shown_beside_the_published_one(plan, tmp_path, capsys):
    """The plan of a pulled model may have no recipe; its name is in the manifest."""
    opened = Plan(plan)
    manifest = replace(opened.manifest, source={"name": "clip-vit-b16"}, recipe={})
    write_plan(plan, manifest, {name: opened.take(name) for name in manifest.sha256})
    root = write_karpathy(tmp_path / "data", "dataset_flickr30k.json", FLICKR_RECORDS)
    arguments = ["--data", "flickr30k", "--root", str(root), "--split", "test"]
    assert main(["evaluate", str(plan), *arguments, "--prompt", "a photo of {}"]) == 0
    assert "published: text to image, rank1 62.2" in capsys.readouterr().out
    assert main(["evaluate", str(plan)]) == 1
    assert "--data NAME" in capsys.readouterr().err
