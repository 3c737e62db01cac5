"""Fixtures of more than one test file.

Fixtures import torch inside their bodies, so that tests of the serving wing start quickly.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from fixtures.loopback_hub import LoopbackHub, run_hub
from hypothesis import HealthCheck, settings
from PIL import Image

if TYPE_CHECKING:
    from finegrain.methods import Clip
    from finegrain.recipe import Recipe
    from finegrain.search.searcher import Searcher

# On a busy machine an example may take any time.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

NUM_CROPS = 12
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the files in tests/golden with the current results",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)`` compares a text with the committed ``tests/golden/<name>``."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing; write it with: pytest --update-golden"
        assert text == path.read_text(encoding="utf-8"), (
            f"{path} differs; if the change is intended, rewrite it with: pytest --update-golden"
        )

    return compare


class TenPictures(NamedTuple):
    """The files that parity tests start from; see ``tests/fixtures/ten_pictures/README.md``."""

    images: list[Path]
    captions: list[str]
    pids: list[int]


@pytest.fixture(scope="session")
def ten_pictures() -> TenPictures:
    folder = Path(__file__).parent / "fixtures" / "ten_pictures"
    rows = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    return TenPictures(
        images=[folder / row["image"] for row in rows],
        captions=[row["caption"] for row in rows],
        pids=[row["pid"] for row in rows],
    )


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """A recipe of transformers that run in milliseconds."""
    from finegrain.data.datasets import SyntheticPeople
    from finegrain.methods import ClipConfig
    from finegrain.models import TextConfig, VitConfig
    from finegrain.recipe import Recipe

    return Recipe(
        name="tiny",
        about="two transformers of two layers",
        data=SyntheticPeople(root="data/tiny", train=32, val=8, test=16, pictures_per_identity=2),
        method=ClipConfig(
            image=VitConfig(height=128, width=64, patch=16, channels=32, depth=2, heads=2),
            text=TextConfig(channels=32, depth=2, heads=2),
            embed_dim=32,
        ),
    )


@pytest.fixture(scope="session")
def tiny_method(tiny_recipe: Recipe) -> Clip:
    """The method of ``tiny_recipe`` with random weights. Shared: do not train it."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_recipe.method.build().eval()


@pytest.fixture(scope="session")
def tiny_plan(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The plan of ``tiny_method``. Shared: copy it before you add to its gallery."""
    folder = _shared_folder(tmp_path_factory) / "tiny_plan"
    folder.mkdir(exist_ok=True)
    path = folder / "model.plan"
    with FileLock(folder / "lock"):
        if not path.exists():
            _write_tiny_plan(
                path,
                request.getfixturevalue("tiny_recipe"),
                request.getfixturevalue("tiny_graph"),
            )
    return path


@pytest.fixture(scope="session")
def tiny_graph(
    tiny_method: Clip, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], bytes]:
    """``tiny_graph("text", opset)`` and ``"image"``: graphs of ``tiny_method``, exported once."""
    from finegrain.exporters.to_onnx import image_graph, text_graph

    folder = _shared_folder(tmp_path_factory) / "tiny_graphs"
    folder.mkdir(exist_ok=True)

    def graph(tower: str, opset: int) -> bytes:
        path = folder / f"{tower}{opset}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                path.write_bytes(
                    text_graph(tiny_method, context_length=77, opset=opset)
                    if tower == "text"
                    else image_graph(tiny_method, height=128, width=64, opset=opset)
                )
        return path.read_bytes()

    return graph


def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run; each worker of pytest-xdist has its own folder inside it."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="module", autouse=True)
def one_table_of_operators() -> None:
    """Let all exports share PyTorch's table of ONNX operators, which takes a second to make."""
    if "finegrain.exporters.to_onnx" not in sys.modules:
        return
    from torch.onnx._internal.exporter import _registration

    registry = _registration.ONNXRegistry
    if not hasattr(registry.from_torchlib, "cache_info"):
        registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))


def _write_tiny_plan(path: Path, recipe: Recipe, graph: Callable[[str, int], bytes]) -> None:
    import finegrain
    from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD
    from finegrain.plan import IMAGE, TEXT, TOKENIZER, Manifest, write_plan
    from finegrain.preprocess.clip_bpe import clip_tokenizer

    image, text = recipe.method.image, recipe.method.text
    manifest = Manifest(
        method="clip",
        embed_dim=recipe.method.embed_dim,
        height=image.height,
        width=image.width,
        fit=recipe.fit,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        context_length=text.context_length,
        precision={TEXT: "fp32", IMAGE: "fp32"},
        checkpoint="0" * 64,
        recipe=recipe.to_dict(),
        parity={},
        made_by=finegrain.__version__,
        sha256={},
    )
    members = {
        TEXT: graph("text", 18),
        IMAGE: graph("image", 18),
        TOKENIZER: clip_tokenizer(text.context_length).to_json().encode(),
    }
    write_plan(path, manifest, members)


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small pictures that are all different. Shared: do not add files to it."""
    folder = tmp_path_factory.mktemp("crops")
    rng = np.random.default_rng(0)
    for number in range(NUM_CROPS):
        blocks = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(blocks).resize((64, 128), Image.Resampling.NEAREST)
        picture.save(folder / f"{number:02d}.jpg", quality=92)
    return folder


@pytest.fixture
def plan(tiny_plan: Path, tmp_path: Path) -> Path:
    """The tiny plan in a new folder, without a gallery."""
    return Path(shutil.copy(tiny_plan, tmp_path / "model.plan"))


@pytest.fixture
def searcher(plan: Path) -> Iterator[Searcher]:
    """A searcher with an empty gallery."""
    from finegrain.search.searcher import Searcher

    with Searcher(plan, threads=1) as searcher:
        yield searcher


@pytest.fixture(scope="session")
def crops_searcher(
    tiny_plan: Path, crops: Path, tmp_path_factory: pytest.TempPathFactory
) -> Searcher:
    """A searcher of all crops. Shared: do not change its gallery."""
    from finegrain.search.searcher import Searcher

    searcher = Searcher(
        tiny_plan, gallery=tmp_path_factory.mktemp("crops_searcher") / "g", threads=1
    )
    searcher.add(crops, progress=False)
    return searcher


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A model hub on the loopback address, and an empty download cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with run_hub() as running:
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running


@pytest.fixture(scope="module", params=["FAISS", "bytes"])
def small_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Indexes have several blocks of few rows, with and without codes, of both kinds of codes."""
    from finegrain.gallery.sqlite import vector_file
    from finegrain.index import codes, exact
    from finegrain.runtime.byte_matrix import copies_weights

    if request.param == "bytes" and not copies_weights():
        pytest.skip("ONNX Runtime does not copy weights on this processor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "BLOCK_ROWS", 512)
        patch.setattr(vector_file, "BLOCK_ROWS", 8)
        patch.setattr(codes, "least_rows", lambda: 128)
        patch.setattr(codes, "multiplies_bytes", lambda: request.param == "bytes")
        yield
