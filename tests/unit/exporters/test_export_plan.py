from __future__ import annotations

import copy
import errno
import os
import sys
import sysconfig
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import finegrain
from finegrain.data.datasets import CuhkPedes, SyntheticPeople
from finegrain.encoder import Encoder
from finegrain.errors import (
    CheckpointError,
    DataError,
    ExportError,
    MissingExtraError,
    PlanError,
)
from finegrain.evaluation.background import Background
from finegrain.evaluation.hub_correction import choose
from finegrain.evaluation.match_probability import fit
from finegrain.exporters import ExportProfile, Fp16, Fp32, Int8, export, export_plan, load_profile
from finegrain.exporters.export_plan import export_method
from finegrain.methods import IrraConfig
from finegrain.plan import IMAGE, MANIFEST, REQUIRED, TEXT, Plan
from finegrain.preprocess.cleaning import TBPS_CLIP_CLEANING
from finegrain.preprocess.vocabulary import VOCABULARY, Vocabulary
from finegrain.recipe import recipe_from_dict
from finegrain.records import Sample
from finegrain.runs.checkpoint import State, save_checkpoint
from finegrain.runs.run import eager_encoder

CAPTIONS = [f"a person of {n} years in a coat of colour {n * 7}" for n in range(200)]
CPU = torch.device("cpu")
PROFILE = ExportProfile(name="test", max_batch=16)


@pytest.fixture(scope="module")
def exported(tiny_recipe, tiny_method, crops, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.plan"
    report = export_to(path, tiny_recipe, tiny_method, crops)
    return path, report


def export_to(path, recipe, method, crops, *, captions=CAPTIONS, profile=PROFILE):
    return export_method(
        recipe,
        method,
        profile,
        path,
        checkpoint="c" * 64,
        samples=samples_of(crops, captions),
        compared_on="twelve crops",
    )


def samples_of(crops, captions):
    """Captions distributed over the crops; each crop is another person."""
    pictures = sorted(crops.iterdir())
    return [
        Sample(image=picture, captions=tuple(captions[n :: len(pictures)]), pid=n)
        for n, picture in enumerate(pictures)
    ]


@pytest.fixture
def without_graph_export(exported, monkeypatch):
    """Use graphs that were exported before, since exporting takes seconds."""
    plan = Plan(exported[0])
    text, image = plan.take(TEXT), plan.take(IMAGE)
    monkeypatch.setattr(export_plan, "text_graph", lambda method, **sizes: text)
    monkeypatch.setattr(export_plan, "image_graph", lambda method, **sizes: image)


def test_the_plan_has_the_embeddings_of_the_eager_model(exported, tiny_recipe, tiny_method, crops):
    path, report = exported
    encoder, eager = Encoder.from_plan(Plan(path)), eager_encoder(tiny_recipe, tiny_method, CPU)
    captions = ["", "red coat", "word " * 100, "红色外套", *CAPTIONS[:9]]
    pictures = sorted(crops.iterdir())
    np.testing.assert_allclose(
        encoder.encode_texts(captions), eager.encode_texts(captions), atol=1e-5
    )
    np.testing.assert_allclose(
        encoder.encode_images(pictures), eager.encode_images(pictures), atol=1e-5
    )
    assert report.failures(PROFILE) == []
    assert report.num_queries > len(CAPTIONS)


def test_a_plan_keeps_only_the_token_rows_that_were_trained(
    exported, tiny_recipe, tiny_method, crops, tmp_path, monkeypatch
):
    full, path = Plan(exported[0]), tmp_path / "model.plan"
    image = full._members[IMAGE]
    monkeypatch.setattr(export_plan, "image_graph", lambda method, **sizes: image)
    tokenizer = tiny_recipe.method.text.tokenizer()
    vocabulary = Vocabulary.of(CAPTIONS, tokenizer)
    export_method(
        tiny_recipe,
        copy.deepcopy(tiny_method),
        PROFILE,
        path,
        checkpoint="c" * 64,
        samples=samples_of(crops, [*CAPTIONS, "a quokka"]),
        compared_on="twelve crops",
        vocabulary=vocabulary,
    )
    plan = Plan(path)
    assert Vocabulary.from_json(plan.take(VOCABULARY)) == vocabulary
    assert len(plan._members[TEXT]) < len(full._members[TEXT]) / 5
    encoder, whole = Encoder.from_plan(plan), Encoder.from_plan(full)
    np.testing.assert_allclose(
        encoder.encode_texts(CAPTIONS), whole.encode_texts(CAPTIONS), atol=1e-6
    )
    lion, zebra = encoder.encode_texts(["a lion in a coat", "a zebra in a coat"])
    np.testing.assert_array_equal(lion, zebra)


def test_the_manifest_states_what_was_exported(exported, tiny_recipe):
    path, report = exported
    manifest = Plan(path).manifest
    assert (manifest.height, manifest.width, manifest.embed_dim) == (128, 64, 32)
    assert manifest.checkpoint == "c" * 64
    assert manifest.parity == report.to_dict()
    assert manifest.compared_on == "twelve crops"
    assert manifest.method == "clip"
    assert manifest.precision == {TEXT: "fp32", IMAGE: "fp32"}
    assert recipe_from_dict(manifest.recipe, "plan") == tiny_recipe
    np.testing.assert_allclose(manifest.mean, (0.48145466, 0.4578275, 0.40821073), atol=1e-6)
    np.testing.assert_allclose(manifest.std, (0.26862954, 0.26130258, 0.27577711), atol=1e-6)


@pytest.mark.usefixtures("without_graph_export")
def test_the_probability_of_a_match_is_fitted_on_the_validation_split(
    tiny_recipe, tiny_method, crops, tmp_path
):
    samples = [replace(s, captions=s.captions[n::4]) for s in samples_of(crops, CAPTIONS)
               for n in range(4)]  # fmt: skip
    few = samples_of(crops, CAPTIONS)
    fitted = []
    for is_validation, used in ((True, samples), (False, samples), (True, few)):
        export_method(
            tiny_recipe,
            tiny_method,
            PROFILE,
            tmp_path / "model.plan",
            checkpoint="c" * 64,
            samples=used,
            compared_on="validation",
            is_validation=is_validation,
        )
        fitted.append(Plan(tmp_path / "model.plan").manifest.match_probability)
    encoder = eager_encoder(tiny_recipe, tiny_method, CPU)
    scores = encoder.encode_texts([s.captions[0] for s in samples]).astype(float) @ (
        encoder.encode_images([s.image for s in samples]).T
    )
    pids = np.array([sample.pid for sample in samples])
    expected = fit(scores, pids[:, None] == pids[None]).to_dict()
    assert fitted[0] == pytest.approx(expected)
    assert fitted[1:] == [None, None]


@pytest.mark.usefixtures("without_graph_export")
def test_training_captions_become_the_bank_of_hub_correction(
    tiny_recipe, tiny_method, crops, tmp_path
):
    samples = [replace(s, captions=s.captions[n::4]) for s in samples_of(crops, CAPTIONS)
               for n in range(4)]  # fmt: skip
    training = [f"someone with {n} bags" for n in range(150)]
    backgrounds = []
    for captions in (training, training[:50]):
        export_method(
            tiny_recipe,
            tiny_method,
            PROFILE,
            tmp_path / "model.plan",
            checkpoint="c" * 64,
            samples=samples,
            compared_on="val split of SyntheticPeople",
            is_validation=True,
            training_captions=captions,
        )
        backgrounds.append(Background.of_plan(Plan(tmp_path / "model.plan")))
    encoder = eager_encoder(tiny_recipe, tiny_method, CPU)
    pids = np.array([sample.pid for sample in samples])
    texts = encoder.encode_texts([c for s in samples for c in s.captions])
    images = encoder.encode_images([s.image for s in samples])
    chosen = choose(
        encoder.encode_texts(training).astype(np.float16).astype(np.float32),
        images,
        texts.astype(float) @ images.T,
        np.repeat(pids, [len(s.captions) for s in samples])[:, None] == pids[None],
    )
    background, none = backgrounds
    assert none is None  # 50 captions are too few
    assert (background.weight, background.neighbours) == (chosen.weight, chosen.neighbours)
    assert background.source == "training captions of SyntheticPeople"
    assert (background.match_probability is None) == (background.weight == 0)


@pytest.mark.usefixtures("without_graph_export")
def test_a_plan_prepares_pictures_and_captions_as_its_recipe_states(
    tiny_recipe, tiny_method, crops, tmp_path
):
    method = tiny_recipe.method
    recipe = replace(
        tiny_recipe,
        fit="crop",
        interpolation="bicubic",
        method=replace(method, text=replace(method.text, cleaning=TBPS_CLIP_CLEANING)),
    )
    export_to(tmp_path / "model.plan", recipe, tiny_method, crops)
    manifest = Plan(tmp_path / "model.plan").manifest
    assert (manifest.fit, manifest.interpolation, manifest.antialias) == ("crop", "bicubic", True)
    assert manifest.cleaning == {"blank": '.!"()*#:;~', "max_words": 77}
    encoder = Encoder.from_plan(Plan(tmp_path / "model.plan"))
    eager = eager_encoder(recipe, tiny_method, CPU)
    assert encoder.transform == eager.transform
    captions = ["A (red) coat; blue", "Tom &amp; Jerry."]
    np.testing.assert_array_equal(
        encoder.tokenizer.encode(captions).ids, eager.tokenizer.encode(captions).ids
    )
    other = eager_encoder(tiny_recipe, tiny_method, CPU).tokenizer.encode(captions)
    assert other.ids.shape != encoder.tokenizer.encode(captions).ids.shape


@pytest.mark.parametrize("member", [TEXT, IMAGE])
def test_graphs_are_valid_and_have_opset_18(exported, member):
    model = onnx.load_model_from_string(Plan(exported[0]).take(member))
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 18


@pytest.mark.parametrize("member", [*REQUIRED, MANIFEST])
def test_no_trace_of_the_exporting_machine_is_in_the_plan(exported, member):
    with zipfile.ZipFile(exported[0]) as archive:
        data = archive.read(member)
    places = {
        sysconfig.get_path("purelib"),
        sys.prefix,
        str(Path(finegrain.__file__).parents[1]),
        str(Path.home()) + "/",
        str(exported[0].parent),
    }
    for trace in (*places, 'File "', "site-packages", ".py", "Traceback"):
        assert trace.encode() not in data, trace


@pytest.mark.slow
def test_two_exports_are_equal_bytes(exported, tiny_recipe, tiny_method, crops, tmp_path):
    export_to(tmp_path / "again.plan", tiny_recipe, tiny_method, crops)
    assert (tmp_path / "again.plan").read_bytes() == exported[0].read_bytes()


@pytest.mark.usefixtures("without_graph_export")
@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_graph_that_disagrees_is_not_written(
    tower, exported, tiny_recipe, tiny_method, crops, tmp_path, monkeypatch
):
    model = onnx.load_model_from_string(Plan(exported[0]).take(tower + ".onnx"))
    draw = np.random.default_rng(1)
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.ndim > 1 and values.dtype == np.float32:
            other = draw.permutation(values.ravel()).reshape(values.shape)
            weight.CopyFrom(onnx.numpy_helper.from_array(other, weight.name))
    wrong = model.SerializeToString()
    monkeypatch.setattr(export_plan, f"{tower}_graph", lambda method, **sizes: wrong)
    out = tmp_path / "out" / "model.plan"
    with pytest.raises(ExportError, match="does not agree with the eager one, and was not") as e:
        export_to(out, tiny_recipe, tiny_method, crops)
    assert f"cosine of {'pictures' if tower == 'image' else 'texts'} is" in str(e.value)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.usefixtures("without_graph_export")
def test_a_failed_export_keeps_the_older_plan(tiny_recipe, tiny_method, crops, tmp_path):
    out = tmp_path / "model.plan"
    out.write_bytes(b"the older plan")
    with pytest.raises(ExportError, match=r"of texts is .*, below 1\.1"):
        export_to(
            out,
            tiny_recipe,
            tiny_method,
            crops,
            profile=ExportProfile(name="x", text=Fp32(min_cosine=1.1)),
        )
    assert out.read_bytes() == b"the older plan"


@pytest.mark.usefixtures("without_graph_export")
@pytest.mark.parametrize(
    ("profile", "least"), [(PROFILE, 32), (replace(PROFILE, text=Fp16()), 200)]
)
def test_too_few_samples_to_compare_are_refused(
    profile, least, tiny_recipe, tiny_method, crops, tmp_path
):
    wanted = f"needs {least} captions and 10 pictures, got {least - 1} and 12"
    with pytest.raises(ExportError, match=wanted):
        export_to(
            tmp_path / "x.plan",
            tiny_recipe,
            tiny_method,
            crops,
            captions=CAPTIONS[: least - 1],
            profile=profile,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_graph_export")
def test_a_dataset_with_too_few_captions_is_refused(
    tiny_recipe, tiny_method, tmp_path, monkeypatch
):
    monkeypatch.setattr(export_plan, "RENDERED", 30)
    data = SyntheticPeople(
        root=str(tmp_path / "data"), train=4, val=2, test=2, pictures_per_identity=1
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text(replace(tiny_recipe, data=data).to_json())
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        export(run, PROFILE, tmp_path / "x.plan")
    optimizer = torch.optim.AdamW(tiny_method.parameters())
    save_checkpoint(run, State(step=1), tiny_method, optimizer)
    with pytest.raises(ExportError, match="needs a split of 200 captions or more, got: train: "):
        export(run, PROFILE, tmp_path / "x.plan", data=data)
    assert not (tmp_path / "x.plan").exists()
    export(run, PROFILE, tmp_path / "x.plan")
    compared_on = Plan(tmp_path / "x.plan").manifest.compared_on
    assert compared_on == "synthetic people: SyntheticPeople has fewer than 200 captions"


@pytest.fixture
def run(tiny_recipe, tiny_method, tmp_path) -> Path:
    """A run of ``tiny_method`` whose dataset is missing."""
    folder = tmp_path / "run"
    folder.mkdir()
    data = CuhkPedes(root=str(tmp_path / "nowhere"))
    (folder / "recipe.json").write_text(replace(tiny_recipe, data=data).to_json())
    save_checkpoint(folder, State(step=1), tiny_method, torch.optim.AdamW(tiny_method.parameters()))
    return folder


@pytest.mark.usefixtures("without_graph_export")
def test_a_run_without_its_dataset_is_compared_on_rendered_people(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export_plan, "RENDERED", 30)
    report = export(run, PROFILE, tmp_path / "model.plan")
    manifest = Plan(tmp_path / "model.plan").manifest
    assert manifest.compared_on == ("synthetic people: CuhkPedes of the recipe is not here")
    assert report.num_queries >= 200
    assert report.eager_rank1 == report.rank1
    assert str(tmp_path) not in str(manifest.parity)


def test_a_requested_dataset_that_is_missing_is_an_error(run, tmp_path):
    with pytest.raises(DataError, match="elsewhere"):
        export(run, PROFILE, tmp_path / "x.plan", data=CuhkPedes(root=str(tmp_path / "elsewhere")))


def test_a_missing_runtime_is_named_before_the_export(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    profile = ExportProfile(name="x", runtime="openvino")
    with pytest.raises(MissingExtraError, match=r'pip install "finegrain\[openvino\]"'):
        export(tmp_path / "no run", profile, tmp_path / "x.plan")


@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_model_that_onnx_cannot_express_is_refused(tower, tiny_recipe, crops, tmp_path, request):
    method = tiny_recipe.method.build()
    broken = getattr(method, f"{tower}_tower")
    forward = broken.forward

    def by_value(*inputs):
        out = forward(*inputs)
        return out if out.sum() > 0 else -out

    broken.forward = by_value
    with pytest.raises(ExportError, match=f"the {tower} tower of Clip has no export path to ONNX"):
        export_to(tmp_path / "x.plan", tiny_recipe, method, crops)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_graph_export")
def test_a_full_disk_keeps_the_older_plan(tiny_recipe, tiny_method, crops, tmp_path, monkeypatch):
    out = tmp_path / "model.plan"
    out.write_bytes(b"the older plan")
    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(PlanError, match=r"cannot write .*: No space left on device"):
        export_to(out, tiny_recipe, tiny_method, crops)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "model.plan": b"the older plan"
    }


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_manifest_names_the_method_and_the_precision(
    tiny_recipe, tiny_method, crops, tmp_path, request
):
    request.getfixturevalue("without_graph_export")
    method = IrraConfig(image=tiny_recipe.method.image, text=tiny_recipe.method.text, embed_dim=32)
    profile = ExportProfile(name="x", text=Int8(min_cosine=0.9), max_drift=100, min_overlap=0)
    export_to(
        tmp_path / "x.plan",
        replace(tiny_recipe, method=method, losses={"itc": 1.0}),
        tiny_method,
        crops,
        profile=replace(profile, min_rank1_agreement=0),
    )
    manifest = Plan(tmp_path / "x.plan").manifest
    assert manifest.method == "irra"
    assert manifest.precision == {TEXT: "int8_pairs", IMAGE: "fp32"}


def test_profiles_of_this_checkout_load():
    paths = sorted((Path(__file__).parents[3] / "export").glob("*.py"))
    assert [load_profile(path).name for path in paths] == [path.stem for path in paths]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no export profile at .*mine.py; these have a name: cpu_int8"),
        ("x = 1\n", "must define `def profile"),
        ("def profile():\n    return 3\n", "must define `def profile"),
        ("profile = 3\n", "must define `def profile"),
        ("def profile(:\n", r"mine\.py is not Python: .*line 1"),
    ],
)
def test_a_file_without_a_profile_is_refused(text, message, tmp_path):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ExportError, match=message):
        load_profile(path)


def test_a_folder_or_another_file_is_not_a_profile(tmp_path):
    (tmp_path / "x.txt").touch()
    for path in (tmp_path, tmp_path / "x.txt"):
        with pytest.raises(ExportError, match="there is no export profile at"):
            load_profile(path)
