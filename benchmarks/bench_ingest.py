"""Ingest of pictures: from a file to the input of the image tower, and into a gallery.

The baseline works as research code does: Pillow, torchvision's transforms to floats, a data loader
with two processes, the eager image tower in fp32, and ``np.save`` of the array at the end. It
resizes with the same filter, so both have the same pixels.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import finegrain
from finegrain.encoder import Encoder
from finegrain.exporters import ExportProfile, load_profile
from finegrain.methods import Clip
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD
from finegrain.plan import Plan
from finegrain.preprocess import ImageTransform, load_image
from finegrain.synthetic import write_people

EXPORT = Path(__file__).parents[1] / "export"
SIZE = (384, 128)
CROP = (270, 128)
CROPS_ACROSS = (4, 15)
"""Number of crops in a photograph, vertically and horizontally."""

NUM_PHOTOGRAPHS = 6
BATCH = 32
WORKERS = 2
LEAST_COSINE = {"onnx_fp32": 0.9999, "cpu_int8": 0.998}
"""Smallest allowed cosine between a picture's embeddings of finegrain and of the baseline."""

NORMALIZE = transforms.Normalize(CLIP_MEAN, CLIP_STD)
BASELINE_TRANSFORM = transforms.Compose([transforms.Resize(SIZE), transforms.ToTensor(), NORMALIZE])

Report = defaultdict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def report(record: Callable[..., None]) -> Iterator[Report]:
    """Measurements by subject and part, which are written to the folder of ``--results``."""
    result: Report = defaultdict(dict)
    yield result
    for subject, parts in result.items():
        record(subject, parts)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory, short: bool) -> list[Path]:
    """JPEG files with one person each."""
    root = tmp_path_factory.mktemp("people")
    people = 2 if short else 32
    write_people(root, identities=people, size=CROP, workers=1, progress=False)
    return sorted((root / "imgs").rglob("*.jpg"))


@pytest.fixture(scope="module")
def photographs(crops: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """JPEG files of the size of a camera's photographs: grids of the crops."""
    (rows, columns), (height, width) = CROPS_ACROSS, CROP
    folder = tmp_path_factory.mktemp("photographs")
    upcoming, paths = cycle(crops), []
    for number in range(NUM_PHOTOGRAPHS):
        people = np.stack([load_image(path) for path in islice(upcoming, rows * columns)])
        grid = people.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(grid.reshape(rows * height, columns * width, 3)).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def copies(crops: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """``copies(count)`` makes a new folder with ``count`` crops. A gallery skips files that it
    knows."""

    def copied(count: int) -> Path:
        folder = tmp_path_factory.mktemp("crops")
        for number, path in enumerate(islice(cycle(crops), count)):
            shutil.copyfile(path, folder / f"{number:06d}.jpg")
        return folder

    return copied


class BaselinePictures(Dataset[Tensor]):
    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Tensor:
        return baseline_pixels(self.paths[position])


def baseline_pixels(path: Path) -> Tensor:
    result: Tensor = BASELINE_TRANSFORM(Image.open(path).convert("RGB"))
    return result


class BaselineIngest:
    """Encodes files and saves the embeddings as an array."""

    def __init__(self, method: Clip) -> None:
        self._tower = copy.deepcopy(method.image_tower)
        self._tower.pixel_norm = nn.Identity()  # the transforms normalise already

    @torch.inference_mode()
    def folder(self, folder: Path) -> Path:
        """Save embeddings of all files, ``[N, D]`` in the order of names, and return the path."""
        pictures = BaselinePictures(sorted(folder.glob("*.jpg")))
        loader = DataLoader(pictures, batch_size=BATCH, num_workers=WORKERS)
        embeddings = [F.normalize(self._tower(pixels), dim=-1) for pixels in loader]
        return self._saved(folder, torch.cat(embeddings))

    @torch.inference_mode()
    def picture(self, path: Path) -> Path:
        """Save the embedding of one file, float32 ``[1, D]``, and return the path."""
        return self._saved(path, F.normalize(self._tower(baseline_pixels(path)[None]), dim=-1))

    @staticmethod
    def _saved(source: Path, embeddings: Tensor) -> Path:
        target = source.with_suffix(".npy")
        np.save(target, embeddings.numpy())
        return target


@pytest.fixture(scope="module")
def baseline(method: Clip) -> BaselineIngest:
    return BaselineIngest(method)


@pytest.mark.parametrize("kind", ["crops", "photographs"])
def test_preprocess(
    kind: str,
    request: pytest.FixtureRequest,
    race: Callable[..., dict[str, Any]],
    rounds: Callable[[int], int],
    report: Report,
) -> None:
    paths = request.getfixturevalue(kind)[:24]
    transform = ImageTransform(height=SIZE[0], width=SIZE[1])

    def ours(path: Path) -> NDArray[np.uint8]:
        return transform(load_image(path))

    # The image graph normalises the pixels of finegrain.
    for path in paths:
        assert torch.equal(NORMALIZE(torch.from_numpy(ours(path)) / 255), baseline_pixels(path))

    summary = race(ours, baseline_pixels, paths, rounds=rounds(200))
    with Image.open(paths[0]) as first:
        size = first.height, first.width
    file_kb = round(float(np.mean([path.stat().st_size for path in paths])) / 1024, 1)
    report["preprocess"][kind] = {**summary, "size": size, "file_kb": file_kb}
    if kind == "crops":  # decoding is most of the work for a photograph, and the same for both
        assert summary["ratio"] > 0.7


@pytest.mark.parametrize("profile", ["cpu_int8", "onnx_fp32"])
def test_ingest(
    profile: str,
    baseline: BaselineIngest,
    crops: list[Path],
    photographs: list[Path],
    copies: Callable[[int], Path],
    shipped: Callable[[ExportProfile], Path],
    race: Callable[..., dict[str, Any]],
    report: Report,
    short: bool,
    tmp_path: Path,
    benchmark: Any,
) -> None:
    if short and profile == "onnx_fp32":
        pytest.skip("fp32 is measured in the full form only")
    plan = shipped(load_profile(EXPORT / f"{profile}.py"))
    threads = torch.get_num_threads()
    with finegrain.Searcher(plan, gallery=tmp_path / "gallery", threads=threads) as searcher:

        def add(folder: Path) -> list[int]:
            return searcher.add(folder, progress=False).ids

        some = copies(4 if short else BATCH)
        cosine = _least_cosine(searcher, add(some), np.load(baseline.folder(some)))
        assert cosine > LEAST_COSINE[profile]

        turns = 1 if short else 3
        folders = [copies(len(crops)) for _ in range(turns)]
        summary = race(add, baseline.folder, folders, rounds=turns, warm_up=0)
        encoder = Encoder.from_plan(Plan(plan), threads=threads)
        parts = {
            "crops": _parts_ms(encoder, searcher.gallery, crops),
            "photographs": _parts_ms(encoder, searcher.gallery, photographs),
        }

    details = {
        "pictures": len(crops),
        "pictures_per_second": {
            name: round(1e3 * len(crops) / ms, 2) for name, ms in summary["p50_ms"].items()
        },
        "least_cosine": round(cosine, 5),
        "parts_ms": parts,
        "decode_share": {
            kind: round(ms["decode"] / sum(ms.values()), 3) for kind, ms in parts.items()
        },
    }
    benchmark.extra_info.update(details)
    report["ingest"][profile] = {**summary, **details}
    assert summary["ratio"] > 1


def test_one_picture(
    baseline: BaselineIngest,
    copies: Callable[[int], Path],
    shipped: Callable[[ExportProfile], Path],
    filled: Callable[[Path], finegrain.Searcher],
    race: Callable[..., dict[str, Any]],
    report: Report,
    short: bool,
) -> None:
    """Add one picture after the other to a large gallery, as pictures of a camera arrive."""
    searcher = filled(shipped(load_profile(EXPORT / "cpu_int8.py")))
    size, turns = len(searcher.gallery), 5 if short else 100

    def add(path: Path) -> list[int]:
        return searcher.add(path, progress=False).ids

    # A gallery skips files that it holds, so each round needs a new file.
    first, *others = sorted(copies(turns + 2).iterdir())
    cosine = _least_cosine(searcher, add(first), np.load(baseline.picture(first)))
    assert cosine > LEAST_COSINE["cpu_int8"]

    summary = race(add, baseline.picture, others, rounds=turns, warm_up=1)
    report["ingest"]["one_picture"] = {**summary, "profile": "cpu_int8", "gallery": size}
    assert summary["ratio"] > 1


def _least_cosine(
    searcher: finegrain.Searcher, ids: Sequence[int], embeddings: NDArray[np.float32]
) -> float:
    """Smallest cosine between vectors of the gallery and embeddings ``[N, D]`` of its pictures."""
    results = searcher.gallery.search(embeddings, len(ids))
    scores = ({hit.id: hit.score for hit in hits} for hits in results)
    return min(of_picture[id_] for id_, of_picture in zip(ids, scores, strict=True))


def _parts_ms(
    encoder: Encoder, gallery: finegrain.Gallery, paths: Sequence[Path]
) -> dict[str, float]:
    """Milliseconds per picture in each part, when the parts run one after the other.

    ``Searcher.add`` is faster than their sum, because it decodes the next batch during the encoding
    of a batch.
    """
    times = []
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        clock = [time.perf_counter()]
        pixels = np.stack([encoder.transform(load_image(path)) for path in batch])
        clock.append(time.perf_counter())
        embeddings = encoder.runtime.encode_images(pixels)
        clock.append(time.perf_counter())
        gallery.add(embeddings, [str(path) for path in batch])
        clock.append(time.perf_counter())
        times.append(1e3 * np.diff(clock) / len(batch))
    parts = np.round(np.median(times, axis=0), 3).tolist()
    return dict(zip(("decode", "encode", "keep"), parts, strict=True))
