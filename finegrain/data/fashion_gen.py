"""Reader of Fashion-Gen: two HDF5 files with pictures, texts and attributes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from finegrain.data.catalog.markup import strip_html
from finegrain.data.published_dataset import PublishedDataset
from finegrain.errors import DataError, require
from finegrain.records import Problem, Sample, Scalar, Split

FILES = {"train": "*train*.h5", "val": "*val*.h5"}
"""Split to a pattern of its file, because copies have other names than the original."""

ENCODING = "iso-8859-1"
IMAGE, NAME, DESCRIPTION, PRODUCT = (
    "input_image",
    "input_name",
    "input_description",
    "input_productID",
)
ATTRIBUTES = {
    "brand": "input_brand",
    "category": "input_category",
    "subcategory": "input_subcategory",
    "material": "input_composition",
    "department": "input_department",
    "gender": "input_gender",
    "season": "input_season",
    "pose": "input_pose",
    "price": "input_msrpUSD",
}
"""Metadata columns to the dataset's keys. Only its texts name colours."""

_ACCESS = (
    "the challenge that gave it out has ended; ask its authors "
    "(https://arxiv.org/abs/1806.08317) for fashiongen_256_256_train.h5 and _validation.h5."
)
_AT_ONCE = 64
"""Number of pictures that are read together."""
_PER_FOLDER = 1000


def read_fashion_gen(root: Path) -> dict[str, Split]:
    """Read all splits. On first use, their pictures are written to PNG files beside the HDF5.

    A row is a picture, and its caption is ``name. description`` without markup. The rows of
    a product share a pid, which is the dataset's number. :data:`ATTRIBUTES` that a copy does not
    have are left out. ``price`` is in US dollars.

    Args:
        root: Folder of the files. The pictures need about twice their size of free disk space.

    Returns:
        ``train`` and ``val``, if their files exist. Rows without words are problems.

    Raises:
        DataError: There is no such file, or it does not follow the format.
        MissingExtraError: ``h5py`` is not installed.
    """
    splits = {}
    for name, pattern in FILES.items():
        files = sorted(root.glob(pattern))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise DataError(f"expected one file {pattern} in {root}, found {names}. Leave one.")
        if files:
            splits[name] = _read_file(files[0], name)
    if not splits:
        raise DataError(
            f"expected {' or '.join(FILES.values())} in {root}, found none. "
            f"How to get it: {_ACCESS}"
        )
    return splits


def _read_file(file: Path, split: str) -> Split:
    h5py = require("h5py", "fashion")
    try:
        with h5py.File(file, "r") as content:
            return _read_rows(content, file, split)
    except OSError as error:
        raise DataError(f"expected HDF5 at {file}, could not read it: {error}.") from error


def _read_rows(content: Any, file: Path, split: str) -> Split:
    pictures = _dataset(content, IMAGE, file)
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
        raise DataError(
            f"{file}: expected {IMAGE} as uint8 [N, H, W, 3], got {pictures.dtype} "
            f"{list(pictures.shape)}."
        )
    count = len(pictures)
    names, descriptions = (_texts(content, key, file, count) for key in (NAME, DESCRIPTION))
    products = _column(content, PRODUCT, file, count)
    columns = {
        ours: _texts(content, theirs, file, count)
        if ours != "price"
        else _column(content, theirs, file, count)
        for ours, theirs in ATTRIBUTES.items()
        if theirs in content
    }
    # Files with other products get another folder, so that no old picture is used.
    digest = hashlib.sha256(np.ascontiguousarray(products).tobytes()).hexdigest()[:12]
    paths = _unpack(pictures, file.with_name(f"{file.stem}-{digest}"))
    samples, problems = [], []
    for row, image in enumerate(paths):
        caption = ". ".join(filter(None, (names[row].rstrip(" ."), descriptions[row])))
        if not caption:
            why = f"has no {NAME} and no {DESCRIPTION}"
            problems.append(Problem(where=f"{file.name} row {row}", why=why))
            continue
        samples.append(
            Sample(
                image=image,
                captions=(caption,),
                pid=int(products[row]),
                metadata={ours: _scalar(column[row]) for ours, column in columns.items()},
            )
        )
    return Split(name=split, samples=tuple(samples), problems=tuple(problems))


def _dataset(content: Any, key: str, file: Path) -> Any:
    h5py = require("h5py", "fashion")
    if key not in content:
        raise DataError(f"{file}: expected a dataset {key!r}, found {', '.join(content)}.")
    dataset = content[key]
    # Links and external storage could read any file of this machine.
    is_own = isinstance(content.get(key, getlink=True), h5py.HardLink)
    if not (is_own and isinstance(dataset, h5py.Dataset)) or dataset.is_virtual or dataset.external:
        raise DataError(f"{file}: expected {key!r} to be a dataset inside the file, got a link.")
    return dataset


def _column(content: Any, key: str, file: Path, count: int) -> npt.NDArray[Any]:
    """One value per row, ``[N]``. The published files have ``[N, 1]``."""
    values = np.asarray(_dataset(content, key, file)[()])
    if values.shape not in ((count,), (count, 1)):
        raise DataError(f"{file}: expected {key} of shape [{count}, 1], got {list(values.shape)}.")
    if key == PRODUCT and not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{file}: expected {key} as integers, got {values.dtype}.")
    return values.reshape(count)


def _texts(content: Any, key: str, file: Path, count: int) -> list[str]:
    values = _column(content, key, file, count)
    return [
        strip_html(value.decode(ENCODING) if isinstance(value, bytes) else str(value))
        for value in values
    ]


def _scalar(value: Any) -> Scalar:
    if isinstance(value, str):
        return value or None
    return round(float(value), 2) if np.isfinite(value) else None


def _unpack(pictures: Any, folder: Path) -> list[Path]:
    """Write missing pictures as lossless files, and return the path of each row's picture."""
    paths = [
        folder / f"{row // _PER_FOLDER:04d}" / f"{row:06d}.png" for row in range(len(pictures))
    ]
    for start in range(0, len(paths), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(paths)))
        missing = [row for row in rows if not paths[row].exists()]
        if missing:
            _write(pictures[rows.start : rows.stop], ((row - start, paths[row]) for row in missing))
    return paths


def _write(pixels: npt.NDArray[np.uint8], wanted: Iterator[tuple[int, Path]]) -> None:
    for position, path in wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        Image.fromarray(pixels[position]).save(partial, format="PNG", compress_level=1)
        partial.replace(path)


def _count(splits: Mapping[str, Split]) -> Mapping[str, int]:
    pictures = {f"{name} pictures": len(split) for name, split in splits.items()}
    return pictures | {f"{name} products": split.num_pids for name, split in splits.items()}


# Rostamzadeh et al., "Fashion-Gen: The Generative Fashion Dataset and Challenge", 2018.
# Some papers print 35,528 validation pictures, a misprint.
FASHION_GEN = PublishedDataset(
    name="fashion_gen",
    title="Fashion-Gen",
    published={
        "train pictures": 260480,
        "train products": 60147,
        "val pictures": 32528,
        "val products": 7519,
    },
    count=_count,
    read=read_fashion_gen,
    access=_ACCESS,
)
