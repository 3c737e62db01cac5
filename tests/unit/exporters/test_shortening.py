"""Exports with shorter embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

import finegrain
from finegrain.cli import main
from finegrain.encoder import Encoder
from finegrain.errors import ExportError
from finegrain.exporters import ExportProfile, export_plan
from finegrain.exporters.export_plan import export_method
from finegrain.exporters.shortening import Shortening, _ShortenedRuntime
from finegrain.plan import IMAGE, TEXT, Plan
from finegrain.records import Sample, Split
from finegrain.runs.run import eager_encoder

DIM = 4
CAPTIONS = [f"a person of {n} years in a coat of colour {n * 7}" for n in range(200)]


def samples_of(crops: Path) -> list[Sample]:
    pictures = sorted(crops.iterdir())
    return [
        Sample(image=picture, captions=tuple(CAPTIONS[n :: len(pictures)]), pid=n)
        for n, picture in enumerate(pictures)
    ]


@pytest.fixture(scope="module")
def shortened(tiny_recipe, tiny_method, tiny_graph, crops, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "short.plan"
    with pytest.MonkeyPatch.context() as patch:  # exporting these graphs again takes seconds
        patch.setattr(export_plan, "text_graph", lambda method, **sizes: tiny_graph("text", 18))
        patch.setattr(export_plan, "image_graph", lambda method, **sizes: tiny_graph("image", 18))
        report = export_method(
            tiny_recipe,
            tiny_method,
            ExportProfile(name="test", max_batch=16, dim=DIM),
            path,
            checkpoint="c" * 64,
            samples=samples_of(crops),
            own_samples=samples_of(crops),
            compared_on="twelve crops",
        )
    return path, report


def literal(fitted: np.ndarray, others: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Principal components of two centred sets, up to the sign of each."""
    centred = np.concatenate(
        [(part - part.mean(0)) / np.sqrt(len(part)) for part in (fitted, others)]
    ).astype(np.float64)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:DIM]
    projected = (new - fitted.mean(0)) @ directions.T
    return projected / np.linalg.norm(projected, axis=1, keepdims=True)


def test_the_plan_has_principal_components_of_the_eager_model(
    shortened, tiny_recipe, tiny_method, crops
):
    encoder = Encoder.from_plan(Plan(shortened[0]))
    eager = eager_encoder(tiny_recipe, tiny_method, torch.device("cpu"))
    samples = samples_of(crops)
    images = eager.encode_images([sample.image for sample in samples])
    texts = eager.encode_texts([sample.captions[0] for sample in samples])
    new = eager.encode_texts(CAPTIONS[50:60])
    assert encoder.embed_dim == DIM
    for got, want in (
        (encoder.encode_images([s.image for s in samples]), literal(images, texts, images)),
        (encoder.encode_texts(CAPTIONS[50:60]), literal(texts, images, new)),
    ):
        np.testing.assert_allclose(np.abs(got), np.abs(want), atol=2e-3)
        np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
    one = encoder.encode_texts(CAPTIONS[:1])
    np.testing.assert_allclose(one, encoder.encode_texts(CAPTIONS[:5])[:1], atol=1e-5)


def test_the_manifest_states_what_is_lost(shortened, tiny_method):
    path, report = shortened
    manifest = Plan(path).manifest
    assert manifest.embed_dim == DIM
    numbers = manifest.parity
    assert numbers["shortened_full_dim"] > numbers["shortened_dim"] == DIM
    assert numbers["shortened_num_fitted"] == 24
    assert numbers["shortened_held_out"] == 0
    assert numbers["shortened_rank1"] == pytest.approx(report.eager_rank1)
    assert numbers["shortened_lost_rank1"] == pytest.approx(
        numbers["shortened_full_rank1"] - numbers["shortened_rank1"]
    )
    assert "lost_rank1" in str(report)
    # The scale of the logits belongs to the cosines of full embeddings.
    assert manifest.logit_scale is manifest.logit_bias is None


class Drawn:
    """Embeddings of pictures and captions that are drawn, by their name."""

    embed_dim = 16

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.spread = np.where(np.arange(16) % 4 == 1, 1.0, 0.01)

    def _vectors(self, names: list[str], mean: float) -> np.ndarray:
        self.seen += names
        rng = np.random.default_rng(len(names))
        drawn = rng.standard_normal((len(names), 16)) * self.spread + mean
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    def encode_images(self, images: list[Path]) -> np.ndarray:
        return self._vectors(list(map(str, images)), 2.0)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return self._vectors(texts, -2.0)


def people(count: int, first: int = 0) -> list[Sample]:
    return [
        Sample(image=Path(f"{n}.jpg"), captions=(f"caption {n}",), pid=n)
        for n in range(first, first + count)
    ]


def test_components_are_those_with_the_largest_spread():
    shortening = Shortening.fitted(Drawn(), people(200), [], 4)
    strongest = np.abs(shortening.matrix).sum(axis=0)
    assert set(np.argsort(-strongest)[:4]) == {1, 5, 9, 13}
    np.testing.assert_allclose(shortening.matrix @ shortening.matrix.T, np.eye(4), atol=1e-6)


def test_the_compared_people_are_left_out_if_others_suffice():
    drawn = Drawn()
    shortening = Shortening.fitted(drawn, people(60), people(50), 4)
    assert shortening.held_out
    assert shortening.num_fitted == 20
    assert set(drawn.seen) == {f"{n}.jpg" for n in range(50, 60)} | {
        f"caption {n}" for n in range(50, 60)
    }
    assert not Shortening.fitted(drawn, people(52), people(50), 4).held_out


@pytest.mark.parametrize("dim", [0, 16, -1, 2.5, True, "8"])
def test_a_width_out_of_its_range_is_refused(dim):
    with pytest.raises(ExportError, match="expected dim= from 1 to 15"):
        Shortening.fitted(Drawn(), people(200), [], dim)


def test_too_few_pictures_are_refused():
    with pytest.raises(ExportError, match=r"dim=8 needs 16 pictures.*got 15"):
        Shortening.fitted(Drawn(), people(15), [], 8)


def test_tokens_of_a_match_head_stay_as_they_are():
    shortening = Shortening.fitted(Drawn(), people(200), [], 4)
    drawn = Drawn()
    tokens = object()
    full = SimpleNamespace(
        has_match_head=True,
        close=lambda: None,
        encode_with_tokens=lambda pixels: (drawn.encode_images(people(3)), tokens),
        match=lambda *given: given,
    )
    runtime = _ShortenedRuntime(full, shortening)
    embeddings, kept = runtime.encode_with_tokens(np.zeros(1, np.uint8))
    assert embeddings.shape == (3, 4)
    assert kept is tokens
    assert runtime.has_match_head
    assert runtime.match(1, 2, 3) == (1, 2, 3)


@pytest.mark.parametrize(
    ("sizes", "own"),
    [
        ({"val": 200, "test": 200, "train": 300}, ("val", "train")),
        ({"val": 10, "test": 200, "train": 300}, ("val", "train")),
        ({"test": 200}, ()),
    ],
)
def test_a_projection_is_never_fitted_on_the_test_split(sizes, own, tiny_recipe, tmp_path):
    splits = {name: Split(name=name, samples=tuple(people(count))) for name, count in sizes.items()}
    recipe = SimpleNamespace(data=SimpleNamespace(splits=lambda: splits))
    chosen = export_plan._chosen_data(recipe, None, tmp_path)
    assert chosen.own_samples == [sample for name in own for sample in splits[name].samples]


def test_the_command_passes_the_width_on(monkeypatch, tmp_path: Path):
    given = {}
    monkeypatch.setattr(
        finegrain, "export", lambda run, profile, out, **options: given.update(options)
    )
    main(["export", str(tmp_path), "--dim", "64"])
    assert given["dim"] == 64


def test_a_width_replaces_that_of_the_profile(monkeypatch, tiny_recipe, tmp_path: Path):
    profiles = []
    monkeypatch.setattr(export_plan, "load_run", lambda run: (tiny_recipe, None, tmp_path))
    monkeypatch.setattr(export_plan, "digest", lambda file: "")
    monkeypatch.setattr(export_plan, "read_vocabulary", lambda run: None)
    chosen = export_plan._Data(Split(name="val", samples=tuple(people(9))), "val split of Some")
    monkeypatch.setattr(export_plan, "_chosen_data", lambda *_: chosen)
    monkeypatch.setattr(
        export_plan,
        "export_method",
        lambda recipe, method, profile, *_, **__: profiles.append(profile),
    )
    profile = ExportProfile(name="test", dim=8)
    finegrain.export(tmp_path, profile)
    finegrain.export(tmp_path, profile, dim=16)
    assert profiles == [profile, replace(profile, dim=16)]


def test_a_width_is_checked_before_a_dataset_is_read(monkeypatch, tiny_recipe, tmp_path: Path):
    width = tiny_recipe.method.embed_dim
    monkeypatch.setattr(export_plan, "load_run", lambda run: (tiny_recipe, None, tmp_path))
    monkeypatch.setattr(export_plan, "_chosen_data", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ExportError, match=f"expected dim= from 1 to {width - 1}"):
        finegrain.export(tmp_path, ExportProfile(name="test"), dim=width)


def test_graphs_that_were_shortened_keep_their_batch(shortened):
    for member in (TEXT, IMAGE):
        model = onnx.load_from_string(Plan(shortened[0]).take(member))
        (output,) = (v for v in model.graph.output if v.name == "embeddings")
        batch, width = output.type.tensor_type.shape.dim
        assert batch.dim_param
        assert width.dim_value == DIM
