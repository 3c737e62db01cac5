"""The model, the gallery and the timing that all benchmarks share.

The model has the size of a released one and random weights. Speed does not depend on the values of
weights, and nothing needs to be downloaded.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tabulate import tabulate

import finegrain
from finegrain.encoder import Encoder
from finegrain.exporters import ExportProfile
from finegrain.exporters.to_onnx import image_graph, text_graph
from finegrain.methods import Clip, ClipConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD
from finegrain.plan import IMAGE, TEXT, TOKENIZER, Manifest, Plan, write_plan
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.runtime.instructions import this_processor

NUM_PICTURES = 100_000
NUM_CAMERAS = 100
ADD_BATCH = 10_000
WARM_UP = 3
PAUSE = 0.02
"""Seconds before each timed call. OpenMP's threads spin after a call, and would occupy the cores of
the next call."""

BASELINE = "plain"
"""Key of the baseline in the files of results."""

PERCENTILES = (50, 95, 99)
CALIBRATED_EVERY = 10
"""Number of rounds of a race between calibrations. More calibrations would empty the caches too
often."""

CALIBRATION_TURNS = 5
"""Number of calibrations before a benchmark, and after it."""

_RACES = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="write one JSON file per subject to this folder (benchmarks/results is published)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RACES] = []


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    machine_info.pop("node", None)  # results are published without the name of the machine
    machine_info.update(_fingerprint())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if races := terminalreporter.config.stash[_RACES]:
        terminalreporter.section("finegrain and baselines, in one run")
        terminalreporter.write_line(tabulate(races, headers="keys", floatfmt=".2f"))


def _fingerprint() -> dict[str, Any]:
    packages = ("torch", "torchvision", "onnxruntime", "faiss-cpu", "numpy", "pillow")
    processor = this_processor()
    return {
        "cpu_name": processor.name,
        "machine": processor.machine,
        "instructions": list(processor.instructions),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "finegrain": finegrain.__version__,
            **{name: version(name) for name in packages},
        },
    }


@pytest.fixture(scope="session")
def machine() -> dict[str, Any]:
    """Everything besides the code that a time depends on."""
    return _fingerprint()


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest, machine: dict[str, Any]) -> Callable[..., None]:
    """``record(subject, results)`` writes results and machine to the folder of ``--results``."""
    folder = request.config.getoption("results")

    def keep(subject: str, results: dict[str, Any]) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            whole = {"what": subject, "machine": machine, **results}
            (folder / f"{subject}.json").write_text(json.dumps(whole, indent=1) + "\n")

    return keep


@pytest.fixture(scope="session")
def short() -> bool:
    """Whether ``FINEGRAIN_FAST=1`` asks for the short form, as CI does."""
    return os.environ.get("FINEGRAIN_FAST", "0") not in ("", "0")


@pytest.fixture(scope="session")
def rounds(short: bool) -> Callable[[int], int]:
    """``rounds(full)`` is ``full``, or a tenth of it in the short form."""
    return lambda full: max(5, full // 10) if short else full


@pytest.fixture(scope="session")
def calibration() -> Callable[[], object]:
    """A fixed computation: products of matrices in cache, and a pass over 64 MB of memory.

    It uses nothing of finegrain, so it takes longer only if the machine is slower.
    """
    square, memory = torch.ones(256, 256), torch.ones(16 << 20)

    def work() -> torch.Tensor:
        for _ in range(8):
            square @ square
        return memory.sum()

    return work


@pytest.fixture
def calibrate(benchmark: Any, calibration: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """``calibrate()`` times one calibration during a benchmark.

    The median of all calibrations is ``calibration_ms`` in ``benchmark.extra_info``. ``compare.py``
    uses it for benchmarks without a peer.
    """
    times: list[float] = []

    def turn() -> None:
        time.sleep(PAUSE)
        start = time.perf_counter()
        calibration()
        times.append(1e3 * (time.perf_counter() - start))

    calibration()  # the first call is warm-up
    for _ in range(CALIBRATION_TURNS):
        turn()
    yield turn
    for _ in range(CALIBRATION_TURNS):
        turn()
    benchmark.extra_info["calibration_ms"] = round(float(np.median(times)), 3)


@pytest.fixture(autouse=True)
def _calibrated(request: pytest.FixtureRequest) -> None:
    """Calibrate in each benchmark."""
    if "benchmark" in request.fixturenames:
        request.getfixturevalue("calibrate")


@pytest.fixture
def race(
    benchmark: Any, calibrate: Callable[[], None], request: pytest.FixtureRequest
) -> Callable[..., dict[str, Any]]:
    """``race(ours, baseline, inputs, rounds=...)`` times two implementations of one computation.

    They take turns on the same input, so a change of the clock or the load affects both. The
    summary is also added to ``benchmark.extra_info``.
    """

    def run(
        ours: Callable[[Any], object],
        baseline: Callable[[Any], object],
        inputs: Sequence[Any],
        *,
        rounds: int,
        warm_up: int = WARM_UP,
    ) -> dict[str, Any]:
        seconds: dict[str, list[float]] = {"finegrain": [], BASELINE: []}
        upcoming = cycle(inputs)

        def rest(name: str) -> None:
            # Done before both calls, so that both start with equally cold caches.
            if len(seconds[name]) % CALIBRATED_EVERY == 0:
                calibrate()
            time.sleep(PAUSE)

        def timed(name: str, work: Callable[[Any], object], argument: Any) -> None:
            start = time.perf_counter()
            work(argument)
            seconds[name].append(time.perf_counter() - start)

        def baseline_goes_first() -> tuple[
            tuple[str, Callable[[Any], object], Any], dict[str, Any]
        ]:
            argument = next(upcoming)
            rest(BASELINE)
            timed(BASELINE, baseline, argument)
            rest("finegrain")
            return ("finegrain", ours, argument), {}

        benchmark.pedantic(
            timed, setup=baseline_goes_first, rounds=rounds, warmup_rounds=warm_up, iterations=1
        )
        kept = {name: [1e3 * s for s in times[-rounds:]] for name, times in seconds.items()}
        within = {
            f"p{q}_ms": {name: round(float(np.percentile(ms, q)), 3) for name, ms in kept.items()}
            for q in PERCENTILES
        }
        p50 = within["p50_ms"]
        summary = {
            **within,
            "min_ms": {name: round(min(ms), 3) for name, ms in kept.items()},
            "calls_per_second": {name: float(f"{1e3 / ms:.4g}") for name, ms in p50.items()},
            "ratio": round(p50[BASELINE] / p50["finegrain"], 3),
            "rounds": rounds,
        }
        benchmark.extra_info.update(summary)
        request.config.stash[_RACES].append(
            {
                "what": request.node.name.removeprefix("test_"),
                "finegrain p50 ms": p50["finegrain"],
                "baseline p50 ms": p50[BASELINE],
                "baseline / finegrain": summary["ratio"],
                "rounds": rounds,
            }
        )
        return summary

    return run


@pytest.fixture(scope="session")
def method() -> Clip:
    """CLIP ViT-B/16 for people, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ClipConfig(image=VitConfig(), text=TextConfig()).build().eval()


@pytest.fixture(scope="session")
def shipped(
    method: Clip, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[ExportProfile], Path]]:
    """``shipped(profile)`` is the plan of ``method`` for a profile, without a parity check."""
    folder = tmp_path_factory.mktemp("plans")
    image, text = VitConfig(), TextConfig()

    def ship(profile: ExportProfile) -> Path:
        path = folder / f"{profile.name}.plan"
        if path.exists():
            return path
        manifest = Manifest(
            method="clip",
            embed_dim=method.text_tower.text_projection.shape[1],
            height=image.height,
            width=image.width,
            fit="stretch",
            mean=CLIP_MEAN,
            std=CLIP_STD,
            context_length=text.context_length,
            precision={TEXT: profile.text.name, IMAGE: profile.image.name},
            checkpoint="0" * 64,
            recipe={},
            parity={},
            made_by=finegrain.__version__,
            sha256={},
        )
        opset = profile.opset
        words = text_graph(method, context_length=text.context_length, opset=opset)
        pixels = image_graph(method, height=image.height, width=image.width, opset=opset)
        members = {
            TEXT: profile.text.lower(words),
            IMAGE: profile.image.lower(pixels),
            TOKENIZER: clip_tokenizer(text.context_length).to_json().encode(),
        }
        write_plan(path, manifest, members)
        return path

    yield ship
    shutil.rmtree(folder)  # pytest keeps the folders of three runs, and these are large


@pytest.fixture(scope="session")
def plan(shipped: Callable[[ExportProfile], Path]) -> Path:
    """The plan in fp32."""
    return shipped(ExportProfile(name="onnx_fp32"))


@pytest.fixture(scope="session")
def encoder(plan: Path) -> Encoder:
    """The plan on ONNX Runtime, with as many threads as torch uses."""
    return Encoder.from_plan(Plan(plan), threads=torch.get_num_threads())


@pytest.fixture(scope="session")
def vectors(method: Clip) -> NDArray[np.float32]:
    """L2-normalised ``[100000, D]``."""
    width = method.text_tower.text_projection.shape[1]
    rows = np.random.default_rng(0).standard_normal((NUM_PICTURES, width), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@pytest.fixture(scope="session")
def images() -> list[str]:
    """Paths of the pictures, in the order of ``vectors``; the files do not exist."""
    return [f"crops/{number:06d}.jpg" for number in range(1, NUM_PICTURES + 1)]


@pytest.fixture(scope="session")
def cameras() -> list[str]:
    """Camera of each vector, in the order of ``vectors``; a camera has one picture in a hundred."""
    return [f"gate-{number % NUM_CAMERAS}" for number in range(NUM_PICTURES)]


@pytest.fixture(scope="session")
def filled(
    vectors: NDArray[np.float32],
    images: list[str],
    cameras: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Path], finegrain.Searcher]]:
    """``filled(plan)`` is a searcher over all ``vectors``."""
    with ExitStack() as opened:

        def fill(plan: Path) -> finegrain.Searcher:
            folder = tmp_path_factory.mktemp("gallery")
            opened.callback(shutil.rmtree, folder)
            gallery = finegrain.Gallery(
                folder / "model.gallery",
                fingerprint=Plan(plan).manifest.fingerprint,
                dim=vectors.shape[1],
            )
            for start in range(0, NUM_PICTURES, ADD_BATCH):
                batch = slice(start, start + ADD_BATCH)
                gallery.add(vectors[batch], images[batch], cameras=cameras[batch])
            threads = torch.get_num_threads()
            searcher = finegrain.Searcher(plan, gallery=gallery, threads=threads)
            return opened.enter_context(searcher)

        yield fill


@pytest.fixture(scope="session")
def searcher(plan: Path, filled: Callable[[Path], finegrain.Searcher]) -> finegrain.Searcher:
    """A searcher in fp32 over all ``vectors``."""
    return filled(plan)
