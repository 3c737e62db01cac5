"""Plans from published pairs of ONNX graphs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fixtures import onnx_pairs
from onnx import TensorProto, helper
from PIL import Image

from finegrain.data.datasets import CuhkPedes
from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError, ExportError, MissingExtraError
from finegrain.evaluation.evaluation import evaluate
from finegrain.exporters.onnx_pair import is_onnx_pair, plan_from_pair
from finegrain.exporters.onnx_pair.tensors import read_graph
from finegrain.exporters.pulling import pull
from finegrain.plan import IMAGE, TEXT, Plan
from finegrain.synthetic import write_people
from finegrain.zoo.choice import choose_files

CAPTIONS = ["woman in red coat", "a", "", "A much longer caption than fits", "Straße 红", "a b"]
LAYOUTS: dict[str, Callable[[Path], None]] = {
    "immich": onnx_pairs.write_immich,
    "clip": onnx_pairs.write_hf_clip,
    "combined": lambda folder: onnx_pairs.write_hf_clip(folder, combined=True),
    "siglip": onnx_pairs.write_hf_siglip,
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pairs")
    for name, write in LAYOUTS.items():
        write(folder / name)
    return {name: folder / name for name in LAYOUTS}


@pytest.fixture
def pair(originals: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies a published pair for changes."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(originals[name], tmp_path / name))

    return copy


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(1)
    sizes = [(40, 90), (90, 40), (32, 32), (7, 5)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in sizes]


def operators(graph: bytes) -> Counter[str]:
    counts: Counter[str] = Counter()
    pending = [onnx.load_from_string(graph).graph]
    while pending:
        for node in pending.pop().node:
            counts[node.op_type] += 1
            pending.extend(a.g for a in node.attribute if a.HasField("g"))
    return counts


def padded_ids(*, start: bool) -> torch.Tensor:
    """Ids of the captions, padded to the context length, by a literal implementation of the
    layout."""
    symbols = sorted(onnx_pairs.pre_tokenizers.ByteLevel.alphabet())
    byte_symbols = onnx_pairs.pre_tokenizers.ByteLevel(add_prefix_space=False)
    rows = []
    for caption in CAPTIONS:
        text = " ".join(caption.split()).lower()
        pieces = "".join(piece for piece, _ in byte_symbols.pre_tokenize_str(text))
        ids = [symbols.index(symbol) for symbol in pieces]
        row = [onnx_pairs.START_ID, *ids] if start else ids
        row = [*row[: onnx_pairs.CONTEXT - 1], onnx_pairs.END_ID]
        rows.append(row + [onnx_pairs.END_ID] * (onnx_pairs.CONTEXT - len(row)))
    return torch.tensor(rows)


def normalised(encoder: Encoder, mean: list[float], std: list[float]) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack([encoder.transform(image) for image in pictures()]))
    return (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plan_agrees_with_published_graphs(
    layout: str, originals: dict[str, Path], tmp_path: Path
) -> None:
    assert is_onnx_pair(originals[layout])
    report = plan_from_pair(
        originals[layout],
        tmp_path / "model.plan",
        source={"name": "tiny", "licence": "MIT"},
        weights={"a": "b"},
    )
    manifest = Plan(tmp_path / "model.plan").manifest
    assert report.text_cosine > 1 - 1e-5
    assert report.image_cosine > 1 - 1e-5
    assert manifest.parity == report.to_dict()
    assert manifest.source == {"name": "tiny", "licence": "MIT"}
    assert manifest.weights == {"a": "b"}
    assert manifest.context_length == onnx_pairs.CONTEXT
    assert manifest.precision == {TEXT: "fp32", IMAGE: "fp32"}


@torch.inference_mode()
@pytest.mark.parametrize("layout", ["clip", "combined"])
def test_clip_has_the_embeddings_of_transformers(
    layout: str, originals: dict[str, Path], tmp_path: Path
) -> None:
    plan_from_pair(originals[layout], tmp_path / "model.plan")
    encoder = Encoder.from_plan(Plan(tmp_path / "model.plan"))
    model, ids = onnx_pairs.clip_model(), padded_ids(start=True)
    ends = (ids == onnx_pairs.END_ID).int().argmax(1, keepdim=True)
    mask = (torch.arange(onnx_pairs.CONTEXT) <= ends).long()
    texts = onnx_pairs.clip_texts(model, ids, mask)
    pixels = normalised(encoder, onnx_pairs.CLIP_MEAN, onnx_pairs.CLIP_STD)
    images = onnx_pairs.clip_images(model, pixels)
    assert_same(encoder, texts, images)


@torch.inference_mode()
def test_siglip_has_the_embeddings_of_transformers(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    plan_from_pair(originals["siglip"], tmp_path / "model.plan")
    encoder = Encoder.from_plan(Plan(tmp_path / "model.plan"))
    model = onnx_pairs.siglip_model()
    texts = model.text_model(padded_ids(start=False)).pooler_output
    images = model.vision_model(normalised(encoder, [0.5] * 3, [0.5] * 3)).pooler_output
    assert_same(encoder, texts, images)


def assert_same(encoder: Encoder, texts: torch.Tensor, images: torch.Tensor) -> None:
    for got, expected in (
        (encoder.encode_texts(CAPTIONS), texts),
        (encoder.encode_images(pictures()), images),
    ):
        unit = torch.nn.functional.normalize(expected, dim=1).numpy()
        np.testing.assert_allclose(got, unit, atol=2e-6)


def test_fixed_batch_of_one_runs_item_by_item(originals: dict[str, Path], tmp_path: Path) -> None:
    plan_from_pair(originals["immich"], tmp_path / "model.plan")
    plan = Plan(tmp_path / "model.plan")
    assert operators(plan.take(TEXT))["Scan"] == operators(plan.take(IMAGE))["Scan"] == 1


def test_end_of_text_is_an_input_and_not_an_arg_max(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    for layout in ("immich", "clip", "combined"):
        plan_from_pair(originals[layout], tmp_path / "model.plan")
        graph = Plan(tmp_path / "model.plan").take(TEXT)
        assert operators(graph)["ArgMax"] == 0, layout


def test_captions_are_padded_only_where_padding_matters(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    slices = {}
    for layout in ("clip", "siglip"):
        plan_from_pair(originals[layout], tmp_path / "model.plan")
        names = [
            tensor.name
            for tensor in onnx.load_from_string(
                Plan(tmp_path / "model.plan").take(TEXT)
            ).graph.initializer
        ]
        slices[layout] = "context" in names
    assert slices == {"clip": False, "siglip": True}


def test_combined_graph_is_cut_into_its_towers(originals: dict[str, Path], tmp_path: Path) -> None:
    sizes = {}
    for layout in ("clip", "combined"):
        plan_from_pair(originals[layout], tmp_path / "model.plan")
        plan = Plan(tmp_path / "model.plan")
        sizes[layout] = len(plan.take(TEXT)), len(plan.take(IMAGE))
    np.testing.assert_allclose(sizes["combined"], sizes["clip"], rtol=0.1)


@pytest.mark.parametrize("layout", ["immich", "siglip"])
def test_plan_runs_on_openvino(layout: str, originals: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    plan_from_pair(originals[layout], tmp_path / "model.plan")
    ours, theirs = (
        Encoder.from_plan(Plan(tmp_path / "model.plan"), runtime=runtime)
        for runtime in ("onnxruntime", "openvino")
    )
    for one, two in (
        (ours.encode_texts(CAPTIONS), theirs.encode_texts(CAPTIONS)),
        (ours.encode_images(pictures()), theirs.encode_images(pictures())),
    ):
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_half_precision_is_read_if_there_is_no_other(
    pair: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pair("clip")
    for name in ("vision_model", "text_model"):
        model = onnx.load(folder / f"onnx/{name}.onnx")
        # Weights in fp16 followed by casts, as converters write them that keep the computation in
        # fp32.
        for tensor in list(model.graph.initializer):
            if tensor.data_type == TensorProto.FLOAT:
                half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
                tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name + "_half"))
                cast = helper.make_node(
                    "Cast", [tensor.name], [tensor.name.removesuffix("_half")], to=TensorProto.FLOAT
                )
                model.graph.node.insert(0, cast)
        onnx.save(model, folder / f"onnx/{name}_fp16.onnx")
        (folder / f"onnx/{name}.onnx").unlink()
    assert is_onnx_pair(folder)
    plan_from_pair(folder, tmp_path / "model.plan")
    assert set(Plan(tmp_path / "model.plan").manifest.precision.values()) == {"fp16"}


def test_mean_pooling_with_a_mask_at_fixed_length(tmp_path: Path) -> None:
    """The text towers of M-CLIP in Immich's layout."""
    folder = tmp_path / "mclip"
    onnx_pairs.write_immich(folder)
    torch.manual_seed(1)
    table = torch.nn.Embedding(onnx_pairs.VOCABULARY, onnx_pairs.WIDTH)

    def mean(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (table(ids) * mask.unsqueeze(2)).sum(1) / mask.sum(1)[:, None]

    ones = torch.ones(1, onnx_pairs.CONTEXT, dtype=torch.int32)
    onnx_pairs.to_onnx(
        table,
        mean,
        {"input_ids": ones, "attention_mask": ones},
        ["embedding"],
        folder / "textual/model.onnx",
    )
    plan_from_pair(folder, tmp_path / "model.plan")
    encoder = Encoder.from_plan(Plan(tmp_path / "model.plan"))
    rows = []
    for row in padded_ids(start=True):
        length = int((row == onnx_pairs.END_ID).int().argmax()) + 1
        rows.append(table(row[:length]).mean(0))
    expected = torch.nn.functional.normalize(torch.stack(rows), dim=1).detach().numpy()
    np.testing.assert_allclose(encoder.encode_texts(CAPTIONS), expected, atol=1e-6)


def test_canonical_captions_have_no_punctuation(
    pair: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pair("immich")
    change(
        folder / "config.json",
        lambda c: c["text_cfg"].update(tokenizer_kwargs={"clean": "canonicalize"}),
    )
    plan_from_pair(folder, tmp_path / "model.plan")
    encoder = Encoder.from_plan(Plan(tmp_path / "model.plan"))
    np.testing.assert_array_equal(*encoder.encode_texts(["A red, coat!", "a red coat"]))


def change(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(file.read_text())
    edit(values)
    file.write_text(json.dumps(values))


def refused(folder: Path, message: str) -> None:
    out = folder.with_name("refused.plan")
    with pytest.raises(ExportError, match=message):
        plan_from_pair(folder, out)
    assert not list(out.parent.glob("refused.plan*"))


def with_external_data(file: Path, name: str = "model.onnx_data") -> onnx.ModelProto:
    onnx.save(onnx.load(file), file, save_as_external_data=True, location=name, size_threshold=0)
    return onnx.load(file, load_external_data=False)


def external(model: onnx.ModelProto) -> Any:
    return next(t for t in model.graph.initializer if t.external_data).external_data


def test_external_data_beside_the_graph_is_stored_in_the_plan(
    pair: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pair("immich")
    plan_from_pair(folder, tmp_path / "inside.plan")
    with_external_data(folder / "visual/model.onnx")
    plan_from_pair(folder, tmp_path / "beside.plan")
    inside, beside = (Plan(tmp_path / f"{name}.plan") for name in ("inside", "beside"))
    assert inside.manifest.fingerprint == beside.manifest.fingerprint


def test_links_of_the_hub_cache_are_followed(pair: Callable[[str], Path], tmp_path: Path) -> None:
    folder = pair("immich")
    with_external_data(folder / "visual/model.onnx")
    cache = tmp_path / "cache"
    snapshot = cache / "snapshots/1234"
    (cache / "blobs").mkdir(parents=True)
    for number, file in enumerate(p for p in folder.rglob("*") if p.is_file()):
        blob = cache / f"blobs/{number}"
        shutil.copy(file, blob)
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    plan_from_pair(snapshot, tmp_path / "model.plan")


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:x", ""]
)
def test_external_data_outside_the_folder_is_refused(
    location: str, pair: Callable[[str], Path]
) -> None:
    folder = pair("immich")
    file = folder / "visual/model.onnx"
    model = with_external_data(file)
    entry = next(e for e in external(model) if e.key == "location")
    entry.value = location
    file.write_bytes(model.SerializeToString())
    (folder / "secret").write_bytes((file.parent / "model.onnx_data").read_bytes())
    refused(folder, "plain name of a file in the same folder")


def test_external_data_behind_a_link_is_refused(pair: Callable[[str], Path]) -> None:
    folder = pair("immich")
    with_external_data(folder / "visual/model.onnx")
    data = folder / "visual/model.onnx_data"
    data.rename(folder / "secret")
    data.symlink_to(folder / "secret")
    refused(folder, "leads out of its folder")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("offset", "-4", "Download"),
        ("length", "9999999999", "Download"),
        ("offset", "x", "invalid"),
    ],
)
def test_external_data_with_a_wrong_offset_is_refused(
    key: str, value: str, message: str, pair: Callable[[str], Path]
) -> None:
    folder = pair("immich")
    file = folder / "visual/model.onnx"
    model = with_external_data(file)
    entries = external(model)
    next(e for e in entries if e.key == key).value = value
    file.write_bytes(model.SerializeToString())
    refused(folder, message)


def test_missing_external_data_is_refused(pair: Callable[[str], Path]) -> None:
    folder = pair("immich")
    with_external_data(folder / "textual/model.onnx")
    (folder / "textual/model.onnx_data").unlink()
    refused(folder, "not beside it")


def test_external_data_larger_than_a_plan_is_refused(
    pair: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pair("immich")
    with_external_data(folder / "visual/model.onnx")
    size = (folder / "visual/model.onnx").stat().st_size
    monkeypatch.setattr("finegrain.exporters.onnx_pair.tensors.MAX_BYTES", size + 1000)
    refused(folder, "smaller model")
    monkeypatch.setattr("finegrain.exporters.onnx_pair.tensors.MAX_BYTES", 1000)
    with pytest.raises(ExportError, match="smaller model"):
        read_graph(folder / "textual/model.onnx")


def edit_graph(file: Path, edit: Callable[[onnx.ModelProto], Any]) -> None:
    model = onnx.load(file)
    edit(model)
    onnx.save(model, file)


def _custom(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "com.microsoft"


def _quantised(model: onnx.ModelProto) -> None:
    output = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.node.extend(
        [
            helper.make_node("DynamicQuantizeLinear", ["before"], ["q", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], [output]),
        ]
    )


def _old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 9


def _batch_of_two(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def _grey(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1


def _two_outputs(model: onnx.ModelProto) -> None:
    first = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Identity", [first], ["a"]))
    model.graph.node.append(helper.make_node("Identity", [first], ["b"]))
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 24]) for n in "ab"
    )


def _doubles(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _infinite(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor) * np.float32(np.nan)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_custom, "only some runtimes know: com.microsoft"),
        (_quantised, "is quantised: it has DequantizeLinear, Dynamic"),
        (_old, "has opset 9"),
        (_batch_of_two, "exactly 2"),
        (_grey, r"\[N, 3, H, W\]"),
        (_two_outputs, "has the outputs a, b"),
        (_doubles, "float32 or float16"),
        (_infinite, "zero or not finite"),
    ],
)
def test_graphs_that_are_refused(
    edit: Callable[[onnx.ModelProto], None], message: str, pair: Callable[[str], Path]
) -> None:
    folder = pair("immich")
    edit_graph(folder / "visual/model.onnx", edit)
    refused(folder, message)


def test_text_tower_that_needs_pictures_is_refused(pair: Callable[[str], Path]) -> None:
    folder = pair("combined")

    def fuse(model: onnx.ModelProto) -> None:
        text = next(v for v in model.graph.output if v.name == "text_embeds")
        for node in model.graph.node:
            for at, name in enumerate(node.output):
                node.output[at] = "alone" if name == text.name else name
            for at, name in enumerate(node.input):
                node.input[at] = "alone" if name == text.name else name
        model.graph.node.append(helper.make_node("Add", ["alone", "image_embeds"], ["text_embeds"]))

    edit_graph(folder / "onnx/model.onnx", fuse)
    refused(folder, "to need one tower only")


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("visual/preprocess_cfg.json", {"size": [64, 64]}, "not of one model"),
        ("visual/preprocess_cfg.json", {"size": 10**9}, "whole numbers from 1 to"),
        ("visual/preprocess_cfg.json", {"resize_mode": "longest"}, "resize_mode = 'longest'"),
        ("visual/preprocess_cfg.json", {"interpolation": "lanczos"}, "interpolation"),
        ("visual/preprocess_cfg.json", {"mean": [0.5]}, "three numbers"),
        ("visual/preprocess_cfg.json", {"std": [0, 1, 1]}, "three numbers"),
        ("visual/preprocess_cfg.json", {"mode": "L"}, "mode 'L'"),
        ("config.json", {"text_cfg": {"context_length": 77}}, "exactly 16 tokens"),
        ("config.json", {"text_cfg": {"context_length": "long"}}, "context length of 'long'"),
        ("textual/tokenizer_config.json", {"pad_token": None}, "no pad_token"),
    ],
)
def test_immich_configurations_that_are_refused(
    file: str, edit: dict[str, Any], message: str, pair: Callable[[str], Path]
) -> None:
    folder = pair("immich")
    change(folder / file, lambda values: values.update(edit))
    refused(folder, message)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"size": {"shortest_edge": 40}}, "crops to"),
        ({"do_center_crop": False}, "crops to"),
        ({"size": {"height": 32, "width": 32}, "crop_size": 16}, "expected no crop"),
        ({"resample": 1}, "resample = 1"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"image_mean": None}, "image_mean"),
    ],
)
def test_hugging_face_configurations_that_are_refused(
    edit: dict[str, Any], message: str, pair: Callable[[str], Path]
) -> None:
    folder = pair("clip")
    change(folder / "preprocessor_config.json", lambda values: values.update(edit))
    refused(folder, message)


@pytest.mark.parametrize(
    ("edit", "mean", "std"),
    [
        ({"do_normalize": False}, [0.0] * 3, [1.0] * 3),
        (
            {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
            [0.5] * 3,
            [0.5] * 3,
        ),
        ({"size": 32}, onnx_pairs.CLIP_MEAN, onnx_pairs.CLIP_STD),
    ],
)
@torch.inference_mode()
def test_normalisation_follows_the_configuration(
    edit: dict[str, Any],
    mean: list[float],
    std: list[float],
    pair: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder = pair("clip")
    change(folder / "preprocessor_config.json", lambda values: values.update(edit))
    plan_from_pair(folder, tmp_path / "model.plan")
    encoder = Encoder.from_plan(Plan(tmp_path / "model.plan"))
    expected = onnx_pairs.clip_images(onnx_pairs.clip_model(), normalised(encoder, mean, std))
    unit = torch.nn.functional.normalize(expected, dim=1).numpy()
    np.testing.assert_allclose(encoder.encode_images(pictures()), unit, atol=2e-6)


def test_processor_of_newer_transformers_is_read(
    pair: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pair("clip")
    file = folder / "preprocessor_config.json"
    onnx_pairs.write_json(
        folder / "processor_config.json", {"image_processor": json.loads(file.read_text())}
    )
    file.unlink()
    plan_from_pair(folder, tmp_path / "model.plan")
    (folder / "processor_config.json").unlink()
    refused(folder, "how pictures are resized")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "not a file of the tokenizers library"),
        (b"\xff\xfe", "not a file of the tokenizers library"),
        (None, "there is no tokenizer"),
    ],
)
def test_wrong_tokenizers_are_refused(
    content: bytes | None, message: str, pair: Callable[[str], Path]
) -> None:
    folder = pair("clip")
    if content is None:
        (folder / "tokenizer.json").unlink()
    else:
        (folder / "tokenizer.json").write_bytes(content)
    refused(folder, message)


def test_tokenizer_without_ends_gets_the_stated_ones(
    pair: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pair("siglip")
    file = folder / "tokenizer.json"
    change(file, lambda values: values.update(post_processor=None))
    refused(folder, "its end token")
    stated = {"add_eos_token": True, "eos_token": onnx_pairs.END}
    change(folder / "tokenizer_config.json", lambda values: values.update(stated))
    plan_from_pair(folder, tmp_path / "model.plan")


def test_tokenizer_of_another_model_is_refused(pair: Callable[[str], Path]) -> None:
    folder = pair("clip")
    other = onnx_pairs.byte_tokenizer(start=True)
    other.add_tokens([f"word{i}" for i in range(10)])
    other.add_special_tokens(["<far>"])
    other.post_processor = onnx_pairs.processors.TemplateProcessing(
        single="<start> $A <far>",
        special_tokens=[("<start>", 256), ("<far>", other.token_to_id("<far>"))],
    )
    other.save(str(folder / "tokenizer.json"))
    refused(folder, "cannot run .*text_model")


def test_towers_of_different_widths_are_refused(pair: Callable[[str], Path]) -> None:
    clip, siglip = pair("clip"), pair("siglip")
    for name in ("onnx/text_model.onnx", "config.json"):
        shutil.copy(siglip / name, clip / name)
    edit_graph(clip / "onnx/vision_model.onnx", lambda m: None)
    refused(clip, "gives embeddings of width 32")


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08"])
def test_files_that_are_not_graphs_are_refused(content: bytes, pair: Callable[[str], Path]) -> None:
    folder = pair("immich")
    (folder / "visual/model.onnx").write_bytes(content)
    refused(folder, "ONNX graph")


def test_configuration_that_is_not_json_is_refused(pair: Callable[[str], Path]) -> None:
    folder = pair("immich")
    (folder / "config.json").write_text("[1]")
    refused(folder, "expected an object")
    (folder / "config.json").write_text("[" * 100_000)
    refused(folder, "cannot be read as JSON")
    (folder / "config.json").write_text(" " * (2 << 20))
    refused(folder, "at most 1048576 bytes")


def test_folder_without_a_pair_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models/onnx").mkdir(parents=True)
    (tmp_path / "models/onnx/vision_model_quantized.onnx").write_bytes(b"")
    assert not is_onnx_pair(tmp_path / "models")
    refused(tmp_path / "models", "got onnx/vision_model_quantized.onnx")


def test_plan_that_would_differ_is_not_written(
    pair: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = {"fp32": 1.1, "fp16": 1.1}
    monkeypatch.setattr("finegrain.exporters.onnx_pair.compare.MIN_COSINE", bounds)
    refused(pair("clip"), "cosine of texts is .* below 1.1; the cosine of pictures is")


def test_pull_makes_a_plan_from_a_folder(pair: Callable[[str], Path], tmp_path: Path) -> None:
    for layout in ("immich", "combined"):
        folder = pair(layout)
        pulled = pull(source=folder, out=tmp_path / "model.plan", accept_licence=True)
        manifest = Plan(pulled.plan).manifest
        assert manifest.method == "onnx_pair"
        assert manifest.weights == pulled.digests
        assert all(name.endswith(".onnx") for name in manifest.weights)


@pytest.mark.parametrize("name", ["visual/model.onnx_data", "visual/model.onnx.data"])
def test_pull_downloads_external_data_of_a_graph(name: str) -> None:
    names = ["visual/model.onnx", "textual/model.onnx", "textual/tokenizer.json", name, "x.py"]
    choice = choose_files(names, "here")
    assert choice.weights == ("visual/model.onnx", "textual/model.onnx", name)
    assert choice.companions == ("textual/tokenizer.json",)


def test_pull_prefers_separate_graphs_to_a_combined_one() -> None:
    combined = "onnx/model.onnx"
    pair = ("onnx/vision_model.onnx", "onnx/text_model.onnx")
    assert choose_files([combined, *pair], "here").weights == pair
    assert choose_files([combined, "model.safetensors"], "here").weights == ("model.safetensors",)
    assert choose_files([combined], "here").weights == (combined,)


def test_plan_of_a_pair_is_evaluated_on_a_dataset_that_is_named(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    plan_from_pair(originals["clip"], tmp_path / "model.plan")
    with pytest.raises(EvaluationError, match="no dataset belongs to it; give one by --data"):
        evaluate(tmp_path / "model.plan")
    write_people(tmp_path / "people", identities=4, splits={"val": 4}, workers=1, progress=False)
    people = CuhkPedes(root=str(tmp_path / "people"))
    assert 0 <= evaluate(tmp_path / "model.plan", people, split="val").text_to_image.rank1 <= 100


def test_missing_onnx_names_the_extra(
    pair: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"finegrain\[pull\]"):
        plan_from_pair(pair("clip"), "model.plan")


WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "open_clip", "torchvision"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from finegrain.__main__ import main
from finegrain.exporters.onnx_pair import plan_from_pair

plan_from_pair(sys.argv[1], "model.plan")
sys.argv = ["finegrain", "index", "model.plan", "photos"]
assert not main()
sys.argv = ["finegrain", "query", "model.plan", "woman in red coat", "-k", "2"]
assert not main()
"""


@pytest.mark.parametrize("layout", ["immich", "siglip"])
def test_pair_is_converted_and_searched_without_torch(
    layout: str, originals: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(pictures()):
        picture.save(tmp_path / f"photos/{number}.png")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(originals[layout])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ".png" in done.stdout
