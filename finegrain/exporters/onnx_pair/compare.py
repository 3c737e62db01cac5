"""Compares a wrapped pair with the published graphs, run as their publishers run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import tokenizers
from numpy.typing import NDArray
from PIL import Image

from finegrain.encoder import Encoder
from finegrain.errors import ExportError
from finegrain.exporters.onnx_pair.settings import MASK, TYPES, Pixels
from finegrain.preprocess import Tokenizer, load_image

if TYPE_CHECKING:  # needs onnx
    from finegrain.exporters.onnx_pair.tower import Tower

MIN_COSINE = {"fp32": 1 - 1e-5, "fp16": 1 - 1e-3}
"""Smallest cosine between an embedding of the plan and of the published graph, by precision."""

BATCH = 3
"""Number of items of a batch, so that graphs for a batch of one are tested with several."""

SENTENCES = (
    "woman in red coat",
    "a man wearing a black jacket, blue jeans and white sneakers, carrying a grey backpack",
    "Beige ribbed midi dress with puff sleeves",
    "two children on bicycles",
    "a",
    "",
    "PERSON with an UMBRELLA!",
    "knee-length skirt; high-heeled shoes (size 38)",
    "un hombre con camisa verde",
    "Straße, café, naïve",
    "红色外套",
    "👩‍🦰 🧥",
    "coat   with \t blanks",
    "the person's coat isn't red",
)

Array = NDArray[np.float32]
Inputs = dict[str, NDArray[Any]]
"""Values of the inputs of a graph, for a batch of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReport:
    """How close a wrapped pair is to its published graphs.

    Attributes:
        num_queries, num_pictures: Number of captions and pictures that were compared.
        text_cosine, image_cosine: Smallest cosine between embeddings of both.
    """

    num_queries: int
    num_pictures: int
    text_cosine: float
    image_cosine: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def failures(self, *, text: str, image: str) -> list[str]:
        """A sentence for each bound that is exceeded.

        Args:
            text, image: Precision of the towers.
        """
        cosines = (
            ("texts", self.text_cosine, MIN_COSINE[text]),
            ("pictures", self.image_cosine, MIN_COSINE[image]),
        )
        # `not >=` fails for a NaN, and `<` does not.
        return [
            f"the cosine of {what} is {got:.6f}, below {bound}"
            for what, got, bound in cosines
            if not got >= bound
        ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Captions and pictures with the embeddings that the published graphs give for them.

    Attributes:
        sentences: ``N`` captions.
        pictures: ``M`` pictures.
        texts, images: Their normalised embeddings, ``[N, D]`` and ``[M, D]``.
    """

    sentences: Sequence[str]
    pictures: Sequence[Image.Image]
    texts: Array
    images: Array

    @classmethod
    def of_published(
        cls, image: Tower, text: Tower, pixels: Pixels, tokenizer: Tokenizer, pad_id: int
    ) -> Comparison:
        """Run the published graphs.

        Raises:
            ExportError: A graph cannot be run, or the widths of the embeddings differ.
        """
        sentences, pictures = _sentences(tokenizer.context_length), _pictures()
        text_inputs = _text_inputs(text, tokenizer, pad_id, sentences)
        image_inputs = _image_inputs(image, pixels, pictures)
        texts = _published(text, text_inputs, unused=image_inputs[0])
        images = _published(image, image_inputs, unused=text_inputs[0])
        if texts.shape[1] != images.shape[1]:
            raise ExportError(
                f"{text.file} gives embeddings of width {texts.shape[1]}, and {image.file} of "
                f"{images.shape[1]}; expected the same. These files are not of one model, or an "
                "output is not the projected embedding."
            )
        return cls(sentences=sentences, pictures=pictures, texts=texts, images=images)

    @property
    def embed_dim(self) -> int:
        """Width ``D`` of the embeddings."""
        return int(self.texts.shape[1])

    def with_plan(self, encoder: Encoder) -> PairReport:
        """Compare a plan with the published graphs, in batches of three and of one."""
        text_cosines, image_cosines = [], []
        for batch_size in (BATCH, 1):
            encoder.batch_size = batch_size
            text_cosines.append(_least_cosine(encoder.encode_texts(self.sentences), self.texts))
            image_cosines.append(_least_cosine(encoder.encode_images(self.pictures), self.images))
        return PairReport(
            num_queries=len(self.sentences),
            num_pictures=len(self.pictures),
            # np.min propagates a NaN, and min does not.
            text_cosine=float(np.min(text_cosines)),
            image_cosine=float(np.min(image_cosines)),
        )

    def __str__(self) -> str:
        return f"{len(self.sentences)} sentences and {len(self.pictures)} drawn pictures"


def _sentences(context_length: int) -> list[str]:
    """The captions to compare, of any length up to the context and beyond."""
    return [*SENTENCES, "coat " * (context_length // 2), "coat " * (2 * context_length)]


def _pictures() -> list[Image.Image]:
    """The pictures to compare: noise and gradients, portrait, landscape, grey and one pixel."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (97, 301, 3), np.uint8))
    smooth = Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8)).resize((480, 640))
    slope = Image.linear_gradient("L")
    return [
        noise,
        noise.rotate(90, expand=True),
        noise.convert("L"),
        smooth,
        smooth.crop((0, 0, 480, 200)),
        slope,
        slope.rotate(180),
        Image.new("RGB", (64, 128), "white"),
        Image.new("RGB", (1, 1), "black"),
    ]


def _text_inputs(
    tower: Tower, tokenizer: Tokenizer, pad_id: int, texts: Sequence[str]
) -> list[Inputs]:
    """Inputs of a published text tower, one caption each.

    Captions are padded to the whole context by the ``tokenizers`` library, as users of the
    published graph do it.
    """
    pieces = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    pieces.enable_truncation(max_length=tokenizer.context_length)
    pieces.enable_padding(length=tokenizer.context_length, pad_id=pad_id)
    inputs = []
    for text in texts:
        encoded = pieces.encode(tokenizer.cleaning(text))
        values = {tower.main: encoded.ids, MASK: encoded.attention_mask, TYPES: encoded.type_ids}
        inputs.append({name: np.array([values[name]]) for name in (tower.main, *tower.others)})
    return inputs


def _image_inputs(tower: Tower, pixels: Pixels, images: Sequence[Image.Image]) -> list[Inputs]:
    """Inputs of a published image tower, one normalised picture each."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (pixels.mean, pixels.std))
    return [
        {tower.main: ((pixels.transform(load_image(image)) * pixels.rescale - mean) / std)[None]}
        for image in images
    ]


def _published(tower: Tower, inputs: Sequence[Inputs], unused: Inputs) -> Array:
    """Normalised embeddings ``[N, D]`` from a published graph, one item at a time.

    Args:
        tower: The published tower. Its graph is read from its file again.
        inputs: Inputs of ``N`` items.
        unused: Values for the inputs of the other tower, if one graph has both.

    Raises:
        ExportError: ONNX Runtime cannot run the graph, or its embeddings are not finite.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors are raised, and warnings concern the publisher
    rows = []
    try:
        session = onnxruntime.InferenceSession(
            tower.file, options, providers=["CPUExecutionProvider"]
        )
        types = {value.name: _NUMPY[value.type] for value in session.get_inputs()}
        for item in inputs:
            values = {**unused, **item}
            feeds = {name: values[name].astype(kind) for name, kind in types.items()}
            rows.append(np.asarray(session.run([tower.output], feeds)[0], np.float32).reshape(-1))
    except Exception as error:  # the errors of ONNX Runtime have no common base
        first_line = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {tower.file}: {first_line}"
        ) from error
    embeddings = np.stack(rows)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise ExportError(f"{tower.file} gives embeddings that are zero or not finite")
    return embeddings / lengths


_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def _least_cosine(a: Array, b: Array) -> float:
    return float(np.sum(a.astype(np.float64) * b, axis=1).min())
