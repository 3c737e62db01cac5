"""Encode one caption and eight pictures with finegrain and with other libraries.

All have the same sizes (CLIP ViT-B/16, pictures of 384x128) and random weights. finegrain encodes a
caption at its own length, because the text tower is causal. sentence-transformers pads to the
longest caption of a batch, and the others pad to 77 tokens. Only towers are timed, except for
sentence-transformers: the time of its ``encode`` includes tokenizing and the normalisation of
pixels. Its pictures already have the right size.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from tabulate import tabulate
from torchvision.transforms import Normalize

from finegrain.encoder import Encoder
from finegrain.exporters import ExportProfile, load_profile
from finegrain.exporters.to_onnx import image_graph, text_graph
from finegrain.methods import Clip
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD
from finegrain.plan import IMAGE, TEXT, TOKENIZER, Plan, write_plan
from finegrain.preprocess import Tokenizer
from finegrain.runtime.eager import EagerRuntime
from finegrain.runtime.instructions import this_processor

CAPTION = "woman in red coat"
BATCH = 8
SIZE = (384, 128)
PATCH = 16
BASELINE = "eager PyTorch, 77 tokens"
INT8 = ("cpu_int8", "openvino_int8")
PROFILES = Path(__file__).parents[1] / "export"
WARM_UP = 1
PAUSE = 0.02
"""Seconds before each timed call. Threads of the previous call may still be spinning."""

Way = Callable[[], NDArray[np.float32]]


@pytest.fixture(scope="module")
def report(record: Callable[..., None]) -> Iterator[dict[str, dict[str, Any]]]:
    """Measurements by test, which are written to the folder of ``--results``."""
    results: dict[str, dict[str, Any]] = {}
    yield results
    if results:
        record("encode", {"model": "ViT-B/16 random weights", **results})


@pytest.fixture(scope="module")
def encoders(
    method: Clip, plan: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Encoder]:
    """The plans of the CPU profiles in ``export/``, by name, each on its runtime."""
    folder, threads = tmp_path_factory.mktemp("plans"), torch.get_num_threads()
    encoders = {"onnx_fp32": Encoder.from_plan(Plan(plan), threads=threads)}
    for name in INT8:
        profile = load_profile(PROFILES / f"{name}.py")
        path = folder / f"{name}.plan"
        _write_plan(path, plan, method, profile)
        encoders[name] = Encoder.from_plan(Plan(path), runtime=profile.runtime, threads=threads)
        path.unlink()
    return encoders


def _write_plan(path: Path, fp32: Path, method: Clip, profile: ExportProfile) -> None:
    """Write the plan of a profile. Graphs of the same opset are copied from the fp32 plan."""
    opened = Plan(fp32)
    manifest = opened.manifest
    text, image = opened.take(TEXT), opened.take(IMAGE)
    if profile.opset != load_profile(PROFILES / "onnx_fp32.py").opset:
        text = text_graph(method, context_length=manifest.context_length, opset=profile.opset)
        image = image_graph(
            method, height=manifest.height, width=manifest.width, opset=profile.opset
        )
    precision = {TEXT: profile.text.name, IMAGE: profile.image.name}
    members = {
        TEXT: profile.text.lower(text),
        IMAGE: profile.image.lower(image),
        TOKENIZER: opened.take(TOKENIZER),
    }
    write_plan(path, replace(manifest, precision=precision), members)


@pytest.fixture(scope="module")
def eager(method: Clip, encoders: dict[str, Encoder]) -> EagerRuntime:
    return EagerRuntime(method, embed_dim=encoders["onnx_fp32"].embed_dim)


@pytest.fixture(scope="module")
def their_clip() -> transformers.CLIPModel:
    """transformers' CLIP of the same size. It interpolates positions for other picture sizes."""
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "patch_size": PATCH,
        "image_size": 224,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    return transformers.CLIPModel(config).eval()


@pytest.fixture(scope="module")
def sentence_transformer(
    their_clip: transformers.CLIPModel,
    encoders: dict[str, Encoder],
    tmp_path_factory: pytest.TempPathFactory,
) -> SentenceTransformer:
    """sentence-transformers with the weights of ``their_clip``, read from a folder."""
    folder = tmp_path_factory.mktemp("sentence_transformer")
    height, width = SIZE
    images = transformers.CLIPImageProcessor(
        size={"height": height, "width": width}, do_center_crop=False
    )
    tokenizer = _their_tokenizer(encoders["onnx_fp32"].tokenizer)
    their_clip.save_pretrained(folder)
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    module = Transformer(str(folder))
    shutil.rmtree(folder)  # pytest keeps the folders of three runs, and this one is large
    # Arguments passed on to the model. Without this one, pictures must be square.
    module.forward_kwargs = {"interpolate_pos_encoding"}
    return SentenceTransformer(modules=[module], device="cpu")


def _their_tokenizer(ours: Tokenizer) -> transformers.CLIPTokenizer:
    """transformers' tokenizer with the vocabulary of CLIP from ``ours``."""
    pairs = json.loads(ours.to_json())["model"]
    pieces = {id_: piece for piece, id_ in pairs["vocab"].items()}
    start, end = pieces[ours.start_id], pieces[ours.end_id]
    return transformers.CLIPTokenizer(
        vocab=pairs["vocab"],
        merges=[tuple(merge) for merge in pairs["merges"]],
        bos_token=start,
        eos_token=end,
        pad_token=end,
        unk_token=end,
        model_max_length=ours.context_length,
    )


@pytest.fixture(scope="module")
def open_clip_model() -> torch.nn.Module:
    model: torch.nn.Module = open_clip.create_model("ViT-B-16", force_image_size=SIZE)
    return model.eval()


@torch.inference_mode()
def test_a_caption(
    encoders: dict[str, Encoder],
    eager: EagerRuntime,
    their_clip: transformers.CLIPModel,
    sentence_transformer: SentenceTransformer,
    open_clip_model: Any,
    report: dict[str, dict[str, Any]],
    rounds: Callable[[int], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokenizer = encoders["onnx_fp32"].tokenizer
    own, padded = tokenizer.encode([CAPTION]), tokenizer.encode([CAPTION], pad_to=77)
    ids = torch.from_numpy(padded.ids).long()
    mask = torch.from_numpy((np.arange(77) <= padded.eot[:, None]).astype(np.int64))

    ways: dict[str, Way] = {
        BASELINE: lambda: eager.encode_texts(padded.ids, padded.eot),
        "transformers": lambda: _array(
            their_clip.get_text_features(input_ids=ids, attention_mask=mask)
        ),
        "sentence-transformers": lambda: sentence_transformer.encode(
            [CAPTION], normalize_embeddings=True, show_progress_bar=False
        ),
        "open_clip": lambda: _array(open_clip_model.encode_text(ids, normalize=True)),
    }
    for name, encoder in encoders.items():
        ways[name] = lambda e=encoder: e.runtime.encode_texts(own.ids, own.eot)  # type: ignore[misc]
    _check(ways, encoders)
    report["text"] = _take_turns(ways, rounds=rounds(60))
    report["text"]["tokens"] = int(own.eot[0]) + 1
    _show(f"a caption of {own.eot[0] + 1} tokens", report["text"], capsys)
    assert min(report["text"]["ratio"][name] for name in encoders) > 1


@torch.inference_mode()
def test_eight_pictures(
    encoders: dict[str, Encoder],
    eager: EagerRuntime,
    their_clip: transformers.CLIPModel,
    sentence_transformer: SentenceTransformer,
    open_clip_model: Any,
    report: dict[str, dict[str, Any]],
    rounds: Callable[[int], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 3, *SIZE), np.uint8)
    normal = Normalize(CLIP_MEAN, CLIP_STD)(torch.from_numpy(pixels) / 255)
    pictures = [Image.fromarray(np.moveaxis(picture, 0, -1)) for picture in pixels]

    ways: dict[str, Way] = {
        BASELINE: lambda: eager.encode_images(pixels),
        "transformers": lambda: _array(
            their_clip.get_image_features(normal, interpolate_pos_encoding=True)
        ),
        "sentence-transformers": lambda: sentence_transformer.encode(
            pictures,
            normalize_embeddings=True,
            show_progress_bar=False,
            interpolate_pos_encoding=True,
        ),
        "open_clip": lambda: _array(open_clip_model.encode_image(normal, normalize=True)),
    }
    for name, encoder in encoders.items():
        ways[name] = lambda e=encoder: e.runtime.encode_images(pixels)  # type: ignore[misc]
    _check(ways, encoders)
    report["image"] = _take_turns(ways, rounds=rounds(60) // 5 + 1, items=BATCH)
    _show(f"{BATCH} pictures", report["image"], capsys)
    assert min(report["image"]["ratio"][name] for name in _int8_products()) > 1


def _int8_products() -> tuple[str, ...]:
    """Profiles that multiply bytes on this processor. OpenVINO needs VNNI for it."""
    instructions = this_processor().instructions
    return INT8 if "VNNI" in instructions or "dotprod" in instructions else INT8[:1]


def _array(output: Any) -> NDArray[np.float32]:
    """Embeddings from the output of a library, which may wrap them."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    array: NDArray[np.float32] = features.numpy()
    return array


def _check(ways: Mapping[str, Way], ours: Mapping[str, Encoder]) -> None:
    """Check that implementations with the same weights give the same embeddings.

    Times are comparable only then.
    """
    embeddings = {name: way() for name, way in ways.items()}
    for name, vectors in embeddings.items():
        assert vectors.shape == embeddings[BASELINE].shape, name
    for name in ours:
        assert _least_cosine(embeddings[name], embeddings[BASELINE]) > 0.998, name
    assert _least_cosine(embeddings["sentence-transformers"], embeddings["transformers"]) > 0.999


def _least_cosine(some: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    norms = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    return float((np.sum(some * others, axis=1) / norms).min())


def _take_turns(ways: Mapping[str, Way], *, rounds: int, items: int = 1) -> dict[str, Any]:
    """Time several implementations in turns.

    Taking turns makes a change of the clock or the load affect all of them.

    Returns:
        Percentiles in milliseconds, ``items`` per second, and the speed relative to the baseline.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(WARM_UP + rounds):
        for name, way in ways.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            way()
            if turn >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - start))
    within = {
        f"p{q}_ms": {name: round(float(np.percentile(ms, q)), 3) for name, ms in times.items()}
        for q in (50, 95, 99)
    }
    p50 = within["p50_ms"]
    least = {name: round(min(ms), 3) for name, ms in times.items()}
    return {
        **within,
        "min_ms": least,
        "per_second": {name: round(1e3 * items / ms, 2) for name, ms in p50.items()},
        "ratio": {name: round(p50[BASELINE] / ms, 2) for name, ms in p50.items()},
        "ratio_of_min": {name: round(least[BASELINE] / ms, 2) for name, ms in least.items()},
        "rounds": rounds,
    }


def _show(what: str, timings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    columns = ("p50_ms", "p95_ms", "p99_ms", "min_ms", "ratio", "ratio_of_min", "per_second")
    rows = [
        {"way": name, **{column: timings[column][name] for column in columns}}
        for name in timings["p50_ms"]
    ]
    with capsys.disabled():
        print(f"\n\n{what}, {timings['rounds']} rounds\n{tabulate(rows, headers='keys')}")
