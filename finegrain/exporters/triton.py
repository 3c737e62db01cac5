"""A model repository for NVIDIA Triton, written from a plan.

A repository with the name ``people`` has two models::

    people_text/config.pbtxt      ids int32 [N, L], eot int32 [N, 1]  ->  embeddings [N, D]
    people_text/1/model.onnx
    people_text/tokenizer.json    for other clients: how captions become ids
    people_text/manifest.json     for other clients: picture size, context length, the plan
    people_image/config.pbtxt     pixels uint8 [N, 3, H, W]           ->  embeddings [N, D]
    people_image/1/model.onnx

The graphs are written as ONNX. Engines in the plan are not used: each of their profiles is for one
batch size, and Triton's batcher makes batches of any size.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from string import Template

from finegrain.errors import ExportError
from finegrain.plan import FORMAT_VERSION, IMAGE, MANIFEST, TEXT, TOKENIZER, Manifest, Plan
from finegrain.runtime.triton import (
    FINGERPRINT,
    OUTPUT,
    image_model,
    is_model_name,
    padded_lengths,
    text_model,
)

CONFIG = "config.pbtxt"
GRAPH = "1/model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonServing:
    """How a Triton server runs the towers.

    There are no preferred batch sizes: the graphs accept any size, and waiting for more requests
    delays those in the queue.

    Attributes:
        max_batch: Largest number of captions or pictures in a batch.
        max_delay_us: Longest time that a request waits for others to join its batch, in
            microseconds.
        max_queue: Largest number of waiting requests. Further requests are rejected at once, so
            that a caller need not wait for a timeout.
        instances: Copies of each tower on every GPU, or on the CPU where there is no GPU.

    Raises:
        ExportError: A number is out of range.
    """

    max_batch: int = 64
    max_delay_us: int = 500
    max_queue: int = 1024
    instances: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name == "max_delay_us" else 1
            if (value := getattr(self, field.name)) < least:
                raise ExportError(f"expected {field.name} of {least} or more, got {value}")


def write_triton_repository(
    plan: Plan, folder: str | Path, *, serving: TritonServing, name: str | None = None
) -> str:
    """Write the towers of a plan into a Triton model repository.

    A repository may have several plans with different names. An existing model is never
    replaced, because a searcher checks the fingerprint only when it opens the model.

    Args:
        plan: A freshly opened plan. Its graphs are removed from memory.
        folder: The repository. It is created where it does not exist.
        serving: How the server runs the towers.
        name: The prefix of the two models' names. The default is the stem of the plan's file.

    Returns:
        The name, such as ``people`` in ``triton://host:8001/people``.

    Raises:
        ExportError: The name is invalid or exists, or the files cannot be written. Nothing is left
            behind.
    """
    folder = Path(folder)
    name = plan.path.stem if name is None else name
    require_free(folder, name)
    models = _models(plan, name, serving)
    try:
        _write(folder, models)
    except OSError as error:
        raise ExportError(
            f"cannot write the model repository {folder}: {error.strerror or error}. "
            "Make room for it, or choose another place, and export again."
        ) from error
    return name


def require_free(folder: Path, name: str) -> None:
    """Check a name for the models of a repository, before minutes of an export.

    Raises:
        ExportError: The name is invalid, or a model with this name exists.
    """
    if not is_model_name(name):
        raise ExportError(
            f"expected a name of letters, digits, '_', '-' and '.' for Triton's models, got "
            f"{name!r:.60}. Rename the plan, or give another name."
        )
    models = text_model(name), image_model(name)
    if taken := [model for model in models if (folder / model).exists()]:
        raise ExportError(
            f"expected a name without models in {folder}, got {name!r}: it already holds "
            f"{' and '.join(taken)}, which a server may use. Export to another name, or delete "
            "them first."
        )


def _models(plan: Plan, name: str, serving: TritonServing) -> dict[str, dict[str, bytes]]:
    """The files of each model."""
    manifest = plan.manifest
    text = _Config(
        model=text_model(name),
        # The graph takes eot as [N], but a Triton input needs a dimension besides the batch.
        inputs=(_Input("ids", "TYPE_INT32", [-1]), _Input("eot", "TYPE_INT32", [1], reshape=[])),
        warm_up=[{"ids": [n], "eot": [1]} for n in padded_lengths(manifest.context_length)],
    )
    picture = [3, manifest.height, manifest.width]
    image = _Config(
        model=image_model(name),
        inputs=(_Input("pixels", "TYPE_UINT8", picture),),
        warm_up=[{"pixels": picture}],
    )
    return {
        text.model: {
            CONFIG: text.render(manifest, serving),
            GRAPH: plan.take(TEXT),
            TOKENIZER: plan.take(TOKENIZER),
            MANIFEST: _stated(manifest),
        },
        image.model: {CONFIG: image.render(manifest, serving), GRAPH: plan.take(IMAGE)},
    }


def _stated(manifest: Manifest) -> bytes:
    stated = {"format_version": FORMAT_VERSION, FINGERPRINT: manifest.fingerprint}
    return json.dumps({**stated, **asdict(manifest)}, indent=1).encode()


def _write(folder: Path, models: Mapping[str, Mapping[str, bytes]]) -> None:
    """Write all files to a temporary folder, then rename each model. An error leaves nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as aside,
        ExitStack() as undo,
    ):
        for model, files in models.items():
            for path, content in files.items():
                target = Path(aside, model, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        for model in models:
            os.rename(Path(aside, model), folder / model)
            undo.callback(shutil.rmtree, folder / model)
        undo.pop_all()


@dataclass(frozen=True, slots=True)
class _Input:
    """An input of a model. Its ``dims`` do not include the batch."""

    name: str
    data_type: str
    dims: list[int]
    reshape: list[int] | None = None

    def stated(self) -> str:
        reshape = "" if self.reshape is None else f" reshape: {{ shape: {self.reshape} }}"
        return f'{{ name: "{self.name}" data_type: {self.data_type} dims: {self.dims}{reshape} }}'

    def zeros(self, dims: Sequence[int]) -> str:
        value = f"{{ data_type: {self.data_type} dims: {list(dims)} zero_data: true }}"
        return f'{{ key: "{self.name}" value: {value} }}'


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    """The configuration of one model.

    Attributes:
        model: Name of the model.
        inputs: Inputs of its graph.
        warm_up: Dimensions of the inputs of each warm-up run.
    """

    model: str
    inputs: Sequence[_Input]
    warm_up: Sequence[Mapping[str, Sequence[int]]]

    def render(self, manifest: Manifest, serving: TritonServing) -> bytes:
        return _CONFIG.substitute(
            model=self.model,
            inputs=",\n  ".join(entry.stated() for entry in self.inputs),
            warm_up=",\n  ".join(self._run(dims) for dims in self.warm_up),
            embed_dim=manifest.embed_dim,
            fingerprint=manifest.fingerprint,
            **asdict(serving),
        ).encode()

    def _run(self, dims: Mapping[str, Sequence[int]]) -> str:
        inputs = ", ".join(entry.zeros(dims[entry.name]) for entry in self.inputs)
        shape = " ".join(f"{name} {list(sizes)}" for name, sizes in dims.items())
        return f'{{ name: "{shape}" batch_size: 1 inputs: [ {inputs} ] }}'


_CONFIG = Template(f"""\
name: "$model"
platform: "onnxruntime_onnx"
max_batch_size: $max_batch
input [
  $inputs
]
output [
  {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [$embed_dim] }}
]
dynamic_batching {{
  max_queue_delay_microseconds: $max_delay_us
  default_queue_policy {{ max_queue_size: $max_queue }}
}}
instance_group [
  {{ count: $instances }}
]
# The first run of a shape is slow. A ready model has completed it.
model_warmup [
  $warm_up
]
# Hash of the plan: a searcher accepts embeddings of its own plan only.
parameters {{
  key: "{FINGERPRINT}"
  value: {{ string_value: "$fingerprint" }}
}}
""")
