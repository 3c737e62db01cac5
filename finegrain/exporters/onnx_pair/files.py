"""The files of a published pair of ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finegrain.errors import ExportError
from finegrain.zoo.json_file import read_json

Layout = Literal["immich", "hugging_face"]

IMMICH = ("visual/model.onnx", "textual/model.onnx")
HUGGING_FACE = ("onnx/vision_model.onnx", "onnx/text_model.onnx")
COMBINED = "onnx/model.onnx"
"""A graph with both towers. The towers are cut out of it."""
FP16 = ("onnx/vision_model_fp16.onnx", "onnx/text_model_fp16.onnx")
"""Read where the files in full precision are not there."""

MAX_TOKENIZER_BYTES = 64 << 20
"""Size limit of a tokenizer file; that of SigLIP 2, with 256,000 pieces, has 34 MB."""


@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """The files of a pair.

    Attributes:
        folder: The folder of the model.
        layout: Who publishes in this layout.
        image, text: The graphs of the towers; the same file for a graph with both.
        tokenizer: The file of the ``tokenizers`` library.
    """

    folder: Path
    layout: Layout
    image: Path
    text: Path
    tokenizer: Path

    def beside_tokenizer(self, name: str) -> Mapping[str, Any]:
        """A configuration in the folder of the tokenizer; empty if it is not there."""
        return read_config(self.tokenizer.with_name(name))


def is_onnx_pair(folder: str | Path) -> bool:
    """Whether a folder has ONNX graphs in a layout that :func:`plan_from_pair` knows.

    Only the names of the files are checked.
    """
    folder = Path(folder)
    has = [all((folder / name).is_file() for name in pair) for pair in (IMMICH, HUGGING_FACE, FP16)]
    return any(has) or (folder / COMBINED).is_file()


def find_pair(folder: Path) -> PairFiles:
    """Find the files of a pair.

    Raises:
        ExportError: The folder has no pair in a known layout, or no tokenizer file.
    """
    if all((folder / name).is_file() for name in IMMICH):
        return _with_tokenizer(folder, "immich", IMMICH, folder / "textual")
    for names in (HUGGING_FACE, (COMBINED, COMBINED), FP16):
        if all((folder / name).is_file() for name in names):
            return _with_tokenizer(folder, "hugging_face", names, folder)
    graphs = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.onnx"))
    raise ExportError(
        f"{folder} has no pair of ONNX graphs: expected {' with '.join(IMMICH)}, "
        f"{' with '.join(HUGGING_FACE)}, or {COMBINED}; got "
        f"{', '.join(graphs[:12]) or 'no .onnx file in a folder of it'}. Quantised variants are "
        "not read: take the graphs in full precision."
    )


def _with_tokenizer(
    folder: Path, layout: Layout, names: tuple[str, str], beside: Path
) -> PairFiles:
    tokenizer = beside / "tokenizer.json"
    if not tokenizer.is_file():
        raise ExportError(
            f"there is no tokenizer at {tokenizer}; expected the tokenizer.json of the model, in "
            "the format of the tokenizers library. Get it from where the graphs come from."
        )
    image, text = (folder / name for name in names)
    return PairFiles(folder=folder, layout=layout, image=image, text=text, tokenizer=tokenizer)


def read_config(file: Path) -> dict[str, Any]:
    """Read a JSON object; a missing file is an empty one.

    Raises:
        ExportError: The file is not a JSON object, or is too large.
    """
    return read_json(file, ExportError) if file.is_file() else {}
