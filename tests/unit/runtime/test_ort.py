"""Plans that are invalid although their members agree with their digests."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from finegrain.encoder import Encoder
from finegrain.errors import PlanError
from finegrain.plan import IMAGE, MANIFEST, TEXT, TOKENIZER, Manifest, Plan, write_plan


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def tiny_copy(tiny_plan, tmp_path) -> Callable[..., Path]:
    """A copy of ``tiny_plan`` with other members or manifest fields, and correct digests."""

    def copy(members: Mapping[str, bytes] | None = None, **facts: object) -> Path:
        held = contents(tiny_plan)
        stated = json.loads(held.pop(MANIFEST))
        del stated["format_version"]
        path = tmp_path / "changed.plan"
        write_plan(path, Manifest(**{**stated, **facts}), {**held, **(members or {})})
        return path

    return copy


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x08\x07" * 50])
@pytest.mark.parametrize("member", [TEXT, IMAGE])
def test_an_invalid_graph_is_refused(tiny_copy, member, data):
    opened = Plan(tiny_copy({member: data}))
    with pytest.raises(PlanError, match=f"cannot load {member}"):
        Encoder.from_plan(opened)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"version": "1.0"}'])
def test_an_invalid_tokenizer_is_refused(tiny_copy, data):
    opened = Plan(tiny_copy({TOKENIZER: data}))
    with pytest.raises(PlanError, match="expected the JSON of a tokenizer"):
        Encoder.from_plan(opened)


def test_exchanged_graphs_are_refused(tiny_copy, tiny_plan, crops):
    held = contents(tiny_plan)
    encoder = Encoder.from_plan(Plan(tiny_copy({TEXT: held[IMAGE], IMAGE: held[TEXT]})))
    with pytest.raises(PlanError, match=r"text\.onnx does not take"):
        encoder.encode_texts(["red coat"])
    with pytest.raises(PlanError, match=r"image\.onnx does not take"):
        encoder.encode_images([crops / "00.jpg"])


def test_a_width_that_differs_from_the_graph_is_refused(tiny_copy):
    encoder = Encoder.from_plan(Plan(tiny_copy(embed_dim=64)))
    with pytest.raises(PlanError, match=r"width 64, and it gives \[1, 32\]"):
        encoder.encode_texts(["red coat"])


def test_a_picture_size_that_differs_from_the_graph_is_refused(tiny_copy, crops):
    encoder = Encoder.from_plan(Plan(tiny_copy(height=64)))
    with pytest.raises(PlanError, match=r"image\.onnx does not take"):
        encoder.encode_images([crops / "00.jpg"])


def test_a_context_length_that_differs_from_the_graph_is_refused(tiny_copy):
    encoder = Encoder.from_plan(Plan(tiny_copy(context_length=300)))
    assert encoder.encode_texts(["red coat"]).shape == (1, 32)
    with pytest.raises(PlanError, match=r"text\.onnx does not take"):
        encoder.encode_texts(["word " * 200])
