"""Reading of weight files without running code from them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finegrain.errors import WeightsError

FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Names of weight files in a folder; the first one that exists is used."""


def weight_file(path: Path) -> Path:
    """The weight file in a folder; any other path is returned as it is.

    Raises:
        WeightsError: The folder has no weight file.
    """
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise WeightsError(f"the folder {path} has neither {' nor '.join(FILES)}")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, a torch file, or OpenAI's archive.

    Torch files are read by the restricted unpickler (``weights_only``), which creates only
    tensors and containers. OpenAI publishes TorchScript archives. Their reader is restricted as
    well, and the program in them is not run.

    Raises:
        WeightsError: The file is missing or damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weight file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            archive = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            return dict(archive.state_dict())
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} cannot be read as weights: {error}") from error
    except Exception as error:  # torch re-raises the unpickler's errors under its own names
        if "UnpicklingError" not in type(error).__name__:
            raise
        raise WeightsError(
            f"{path} holds more than tensors, and finegrain does not run what is in a weight "
            f"file. If you trust the file, save its state dict as .safetensors."
        ) from error
    return _state_dict_in(loaded, path)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _state_dict_in(loaded: object, path: Path) -> dict[str, Tensor]:
    """Find the state dict, also if a trainer has stored it under a key."""
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"expected a dict of tensors in {path}, got {type(loaded).__name__}")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}
