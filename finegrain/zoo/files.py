"""Reading of weight files without running code from them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finegrain.bounded.zip_archive import open_zip
from finegrain.errors import WeightsError
from finegrain.zoo.shards import INDEX_SUFFIX, INDEXES, is_shard, read_index

HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
FILES = (*HUGGING_FACE, *OPEN_CLIP, *INDEXES)
"""Names of weight files in a folder; the first one that exists is used."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")

MAX_HEADER_BYTES = 4 << 20
"""Largest header of a safetensors file: some 40,000 tensors; a ViT-L/14 has 600."""

MAX_DIRECTORY_BYTES = 4 << 20
"""Largest size of the directory of a torch file: some 40,000 tensors."""


def weight_file(path: Path) -> Path:
    """The weight file in a folder; any other path is returned as it is.

    It has one of the usual names, or it is the only weight file. In a folder with the
    configuration of open_clip, the file in the layout of open_clip is preferred, because the
    other one may be for code that is not part of any library.

    Raises:
        WeightsError: The folder has no weight file, or several with unusual names.
    """
    if not path.is_dir():
        return path
    is_open_clip = (path / "open_clip_config.json").is_file()
    for name in (*OPEN_CLIP, *HUGGING_FACE, *reversed(INDEXES)) if is_open_clip else FILES:
        if (path / name).is_file():
            return path / name
    others = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if len(others) == 1:
        return others[0]
    if others:
        raise WeightsError(
            f"the folder {path} has {len(others)} weight files, and finegrain cannot tell which is "
            f"the model: {', '.join(file.name for file in others[:10])}. Name one of them"
        )
    raise WeightsError(f"the folder {path} has neither {' nor '.join(FILES)}")


def weight_files(file: Path) -> tuple[Path, ...]:
    """A weight file, or the index of several with the files that it names.

    Raises:
        WeightsError: The index is damaged, or a file is missing.
    """
    return (file, *read_index(file)) if file.name.endswith(INDEX_SUFFIX) else (file,)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, an index of them, a torch file, or OpenAI's archive.

    Torch files are read by the restricted unpickler (``weights_only``), which creates only
    tensors and containers. OpenAI publishes TorchScript archives. Their reader is restricted as
    well, and the program in them is not run.

    Raises:
        WeightsError: The file is missing or damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weight file at {path}")
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path)
    if is_shard(path.name):
        raise WeightsError(
            f"{path} is one of several files of a model; expected their index, such as {INDEXES[0]}"
        )
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        if _is_torchscript(path):
            archive = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            return dict(archive.state_dict())
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (
        zipfile.BadZipFile,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
    ) as error:
        raise WeightsError(f"{path} cannot be read as weights: {error}") from error
    except Exception as error:  # torch re-raises the unpickler's errors under its own names
        if "UnpicklingError" not in type(error).__name__:
            raise
        raise WeightsError(
            f"{path} holds more than tensors, and finegrain does not run what is in a weight "
            f"file. If you trust the file, save its state dict as .safetensors."
        ) from error
    return _state_dict_in(loaded, path)


def _read_shards(index: Path) -> dict[str, Tensor]:
    """Read the files of an index; each must have exactly the tensors that the index says."""
    state: dict[str, Tensor] = {}
    for path, names in read_index(index).items():
        tensors = read_safetensors(path)
        differing = sorted(names.symmetric_difference(tensors))
        if differing:
            raise WeightsError(
                f"{path} has other tensors than {index.name} says: {', '.join(differing[:5])}"
            )
        state |= tensors
    return state


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file whose header has at most :data:`MAX_HEADER_BYTES`.

    Raises:
        WeightsError: The file is missing or damaged, or its header is larger.
    """
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > MAX_HEADER_BYTES:
            raise WeightsError(
                f"{path} cannot be read as weights: expected a header of at most "
                f"{MAX_HEADER_BYTES} bytes, got {header_bytes}. Copy it again from its source."
            )
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as weights: {error}") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with open_zip(path, max_directory=MAX_DIRECTORY_BYTES) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _state_dict_in(loaded: object, path: Path) -> dict[str, Tensor]:
    """Find the state dict, also if a trainer has stored it under a key."""
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"expected a dict of tensors in {path}, got {type(loaded).__name__}")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}
