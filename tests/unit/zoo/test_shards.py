"""Weights in several safetensors files, as transformers writes them."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from fixtures.loopback_hub import Repository
from fixtures.published_clips import write_hugging_face_clip
from safetensors.torch import load_file, save_file

from finegrain.cli.parser import main
from finegrain.errors import WeightsError
from finegrain.plan import Plan
from finegrain.runs.published import read_published
from finegrain.zoo.choice import choose_files
from finegrain.zoo.fetching import fetch
from finegrain.zoo.files import read_state_dict
from finegrain.zoo.shards import MAX_SHARDS, shards_of

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A CLIP of Hugging Face in one file, and in several."""
    folder = tmp_path_factory.mktemp("clip")
    model = write_hugging_face_clip(folder / "one", length=12, dim=16)
    model.save_pretrained(folder / "several", max_shard_size="800KB")
    return folder


@pytest.fixture
def several(published, tmp_path):
    """A copy of the model in several files, to be damaged."""
    folder = tmp_path / "several"
    folder.mkdir()
    for path in (published / "several").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def shards(folder):
    return sorted(folder.glob("*-of-*.safetensors"))


def change_index(folder, **tensors):
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] |= tensors
    (folder / INDEX).write_text(json.dumps(index))
    return folder / INDEX


@torch.no_grad()
def test_the_model_equals_that_of_one_file(published):
    one = read_published(published / "one").method.state_dict()
    read = read_published(published / "several")
    assert len(shards(published / "several")) > 2
    assert read.file.name == INDEX
    several = read.method.state_dict()
    assert several.keys() == one.keys()
    assert all(torch.equal(several[name], tensor) for name, tensor in one.items())


@pytest.mark.slow
def test_a_repository_is_pulled_with_the_digest_of_each_file(hub, published, tmp_path):
    hub.add_folder("somebody/clip", published / "several")
    out = tmp_path / "model.plan"
    assert main(["pull", "somebody/clip", "-o", str(out)]) == 0
    stated = Plan(out).manifest.weights
    files = [published / "several" / INDEX, *shards(published / "several")]
    assert stated == {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_the_checkpoint_digest_changes_with_any_file(several):
    before = read_published(several).sha256
    tensors = load_file(shards(several)[-1])
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, shards(several)[-1])
    assert read_published(several).sha256 != before


def test_a_damaged_file_is_named_and_removed_from_the_cache(hub, published):
    repository = hub.add_folder("somebody/clip", published / "several")
    second = shards(published / "several")[1].name
    repository.digests[second] = "0" * 64
    with pytest.raises(WeightsError, match=f"{second} of somebody/clip is not the file"):
        fetch("somebody/clip", progress=False)
    del repository.digests[second]
    assert (fetch("somebody/clip", progress=False).folder / second).is_file()


def test_a_missing_file_is_named(hub, several):
    missing = shards(several)[1]
    missing.unlink()
    hub.repositories["somebody/clip"] = Repository({p.name: b"" for p in several.iterdir()})
    for read in (
        lambda: read_state_dict(several / INDEX),
        lambda: fetch(None, source=several),
        lambda: fetch("somebody/clip", progress=False),
    ):
        with pytest.raises(WeightsError, match=rf"without {missing.name}"):
            read()


@pytest.mark.parametrize(
    "name",
    ["../model-00001-of-00002.safetensors", "/etc/passwd", "model.bin", "config.json", "", 7, None],
)
def test_an_index_may_name_files_of_the_model_only(several, name):
    with pytest.raises(WeightsError, match="expected a file in the same folder"):
        read_state_dict(change_index(several, another=name))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_a_damaged_index_is_named(several, content):
    (several / INDEX).write_text(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json"):
        read_state_dict(several / INDEX)


def test_tensors_must_be_in_the_file_of_the_index(several):
    first, second = shards(several)[:2]
    moved = next(iter(load_file(second)))
    with pytest.raises(WeightsError, match=rf"{first.name} has other tensors.*: {moved}"):
        read_state_dict(change_index(several, **{moved: first.name}))


def test_a_single_shard_is_not_a_model(hub, several):
    one = shards(several)[0]
    for read in (lambda: read_state_dict(one), lambda: fetch(None, source=one)):
        with pytest.raises(WeightsError, match=r"one of several files.*index\.json"):
            read()


def test_the_number_of_files_is_bounded():
    count = MAX_SHARDS + 1
    names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    with pytest.raises(WeightsError, match=rf"all of 1 to {MAX_SHARDS} files, got {count}"):
        shards_of(INDEX, names, "a/b")
    with pytest.raises(WeightsError, match=r"got 1 without model-00001-of-99999"):
        shards_of(INDEX, ["model-00007-of-99999.safetensors"], "a/b")


def test_one_file_is_preferred_to_several():
    names = [INDEX, "model-00001-of-00001.safetensors"]
    assert choose_files(names, "a/b").weights == tuple(names)
    assert choose_files(names, "a/b", INDEX).weights == tuple(names)
    assert choose_files([*names, "model.safetensors"], "a/b").weights == ("model.safetensors",)
