"""The published models that ``finegrain pull`` knows by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finegrain.errors import WeightsError, did_you_mean

Speed = Literal["fast", "medium", "slow"]

_FAST, _MEDIUM = 15.0, 60.0
"""Largest GFLOPs of the image tower for a picture, of the classes fast and medium."""

_TABLES = "open_clip 89fb801, docs/openclip_retrieval_results.csv and docs/model_profile.csv"


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A published model.

    Attributes:
        name: The name that ``pull`` takes.
        about: What it is good for, in a few words.
        repository: Where it is published, as ``owner/name``.
        onnx: A repository with its two towers as ONNX, which need no PyTorch; None if there is
            none. It may be ``repository`` itself.
        layout: The layout of ``repository``.
        revision: Commit of ``repository``; None takes the newest. The commit that was pulled is
            in the manifest of the plan.
        file: The weight file; None recognises it.
        sha256: Digest of ``file``; None takes the digest that the hub states.
        embed_dim: Width of the embeddings.
        parameters: Number of parameters of both towers, in millions.
        image_gflops: Billions of floating-point operations of the image tower for a picture, as
            published; where no source states it, counted by PyTorch on the same architecture.
        flickr30k, coco: Zero-shot text-to-picture rank1 on Flickr30k and MS-COCO, in percent.
        licence: Licence of the weights. What the repository states counts as well.
        source: Source of the numbers.
    """

    name: str
    about: str
    repository: str
    onnx: str | None = None
    layout: str = "open_clip"
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None
    embed_dim: int
    parameters: float
    image_gflops: float
    flickr30k: float | None = None
    coco: float | None = None
    licence: str
    source: str = _TABLES

    @property
    def num_bytes(self) -> int:
        """Size of the weights in single precision."""
        return round(self.parameters * 4e6)

    @property
    def speed(self) -> Speed:
        """How fast the image tower is, by its number of operations."""
        if self.image_gflops < _FAST:
            return "fast"
        return "medium" if self.image_gflops < _MEDIUM else "slow"


_MOBILE = "ml-mobileclip 4144bb1, list of MobileCLIP2 models; widths by open_clip's configurations"

KNOWN: tuple[KnownModel, ...] = (
    KnownModel(
        name="clip-vit-b32",
        about="OpenAI's CLIP ViT-B/32",
        repository="timm/vit_base_patch32_clip_224.openai",
        onnx="immich-app/ViT-B-32__openai",
        embed_dim=512,
        parameters=151.28,
        image_gflops=8.82,
        flickr30k=58.8,
        coco=30.4,
        licence="MIT",
    ),
    KnownModel(
        name="clip-b32-laion2b",
        about="CLIP ViT-B/32, trained on LAION-2B",
        repository="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        onnx="immich-app/ViT-B-32__laion2b-s34b-b79k",
        embed_dim=512,
        parameters=151.28,
        image_gflops=8.82,
        flickr30k=66.8,
        coco=39.3,
        licence="MIT",
    ),
    KnownModel(
        name="clip-vit-b16",
        about="OpenAI's CLIP ViT-B/16",
        repository="timm/vit_base_patch16_clip_224.openai",
        onnx="immich-app/ViT-B-16__openai",
        embed_dim=512,
        parameters=149.62,
        image_gflops=35.13,
        flickr30k=62.2,
        coco=33.1,
        licence="MIT",
    ),
    KnownModel(
        name="clip-b16-datacomp",
        about="CLIP ViT-B/16, trained on DataComp-1B",
        repository="laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        embed_dim=512,
        parameters=149.62,
        image_gflops=35.13,
        flickr30k=67.6,
        coco=40.2,
        licence="MIT",
    ),
    KnownModel(
        name="clip-b16-laion2b",
        about="CLIP ViT-B/16, trained on LAION-2B",
        repository="laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        embed_dim=512,
        parameters=149.62,
        image_gflops=35.13,
        flickr30k=69.8,
        coco=42.3,
        licence="MIT",
    ),
    KnownModel(
        name="clip-b16-dfn",
        about="CLIP ViT-B/16, trained on DFN-2B",
        repository="apple/DFN2B-CLIP-ViT-B-16",
        embed_dim=512,
        parameters=149.62,
        image_gflops=35.13,
        flickr30k=69.1,
        coco=43.4,
        licence="Apple's terms",
    ),
    KnownModel(
        name="siglip-b16",
        about="SigLIP ViT-B/16",
        repository="timm/ViT-B-16-SigLIP",
        onnx="immich-app/ViT-B-16-SigLIP__webli",
        embed_dim=768,
        parameters=203.16,
        image_gflops=35.42,
        flickr30k=74.7,
        coco=47.8,
        licence="Apache-2.0",
    ),
    KnownModel(
        name="siglip2-b16",
        about="SigLIP 2 ViT-B/16, many languages",
        repository="timm/ViT-B-16-SigLIP2",
        onnx="immich-app/ViT-B-16-SigLIP2__webli",
        embed_dim=768,
        # those of SigLIP with 256,000 instead of 32,000 word vectors
        parameters=375.19,
        image_gflops=35.42,
        licence="Apache-2.0",
    ),
    KnownModel(
        name="xlm-r-b32",
        about="CLIP ViT-B/32 with XLM-R, many languages",
        repository="immich-app/XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k",
        onnx="immich-app/XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k",
        layout="onnx",
        embed_dim=512,
        parameters=366.12,
        image_gflops=8.82,
        flickr30k=64.5,
        coco=37.8,
        licence="MIT",
    ),
    KnownModel(
        name="clip-vit-l14",
        about="OpenAI's CLIP ViT-L/14",
        repository="timm/vit_large_patch14_clip_224.openai",
        onnx="immich-app/ViT-L-14__openai",
        embed_dim=768,
        parameters=427.62,
        image_gflops=162.03,
        flickr30k=65.0,
        coco=36.5,
        licence="MIT",
    ),
    KnownModel(
        name="clip-l14-datacomp",
        about="CLIP ViT-L/14, trained on DataComp-1B",
        repository="laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        embed_dim=768,
        parameters=427.62,
        image_gflops=162.03,
        flickr30k=73.4,
        coco=45.7,
        licence="MIT",
    ),
    KnownModel(
        name="clip-l14-laion2b",
        about="CLIP ViT-L/14, trained on LAION-2B",
        repository="laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
        onnx="immich-app/ViT-L-14__laion2b-s32b-b82k",
        embed_dim=768,
        parameters=427.62,
        image_gflops=162.03,
        flickr30k=75.5,
        coco=46.5,
        licence="MIT",
    ),
    KnownModel(
        name="fashion-clip",
        about="products of a shop, by CLIP ViT-B/32",
        repository="patrickjohncyh/fashion-clip",
        layout="hugging_face",
        embed_dim=512,
        parameters=151.28,
        image_gflops=8.82,
        licence="MIT",
    ),
    KnownModel(
        name="marqo-fashionclip",
        about="products of a shop, by CLIP ViT-B/16",
        repository="Marqo/marqo-fashionCLIP",
        embed_dim=512,
        parameters=149.62,
        image_gflops=35.13,
        licence="Apache-2.0",
    ),
    KnownModel(
        name="marqo-fashionsiglip",
        about="products of a shop, by SigLIP ViT-B/16",
        repository="Marqo/marqo-fashionSigLIP",
        embed_dim=768,
        parameters=203.16,
        image_gflops=35.42,
        licence="Apache-2.0",
    ),
    KnownModel(
        name="chinese-clip-b16",
        about="Chinese CLIP ViT-B/16",
        repository="OFA-Sys/chinese-clip-vit-base-patch16",
        layout="hugging_face",
        embed_dim=512,
        parameters=188.0,
        image_gflops=35.13,
        licence="MIT",
        source="Chinese-CLIP's list of models, 31863c7",
    ),
    KnownModel(
        name="tinyclip-39m",
        about="TinyCLIP ViT-39M/16, distilled from CLIP",
        repository="wkcn/TinyCLIP-ViT-39M-16-Text-19M-YFCC15M",
        embed_dim=512,
        parameters=58.0,
        image_gflops=15.98,
        licence="MIT",
        source="TinyCLIP's list of models, ad981bf",
    ),
    KnownModel(
        name="mobileclip2-s0",
        about="MobileCLIP2-S0, for phones",
        repository="timm/MobileCLIP2-S0-OpenCLIP",
        embed_dim=512,
        parameters=74.8,
        image_gflops=4.79,
        licence="Apple's terms",
        source=_MOBILE,
    ),
    KnownModel(
        name="mobileclip2-s2",
        about="MobileCLIP2-S2, for phones",
        repository="timm/MobileCLIP2-S2-OpenCLIP",
        embed_dim=512,
        parameters=99.1,
        image_gflops=15.69,
        licence="Apple's terms",
        source=_MOBILE,
    ),
    KnownModel(
        name="mobileclip2-b",
        about="MobileCLIP2-B, for phones",
        repository="timm/MobileCLIP2-B-OpenCLIP",
        embed_dim=512,
        parameters=149.7,
        image_gflops=35.42,
        licence="Apple's terms",
        source=_MOBILE,
    ),
    KnownModel(
        name="mobileclip2-s3",
        about="MobileCLIP2-S3, for phones",
        repository="timm/MobileCLIP2-S3-OpenCLIP",
        embed_dim=768,
        parameters=248.7,
        image_gflops=29.64,
        licence="Apple's terms",
        source=_MOBILE,
    ),
    KnownModel(
        name="mobileclip2-s4",
        about="MobileCLIP2-S4, for phones",
        repository="timm/MobileCLIP2-S4-OpenCLIP",
        embed_dim=768,
        parameters=445.2,
        image_gflops=55.54,
        licence="Apple's terms",
        source=_MOBILE,
    ),
)
"""All models: general ones by size, then those for fashion, Chinese and phones."""

_FREE = frozenset(
    {"mit", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear"}
)
"""The licences that need no acceptance, as the hub spells them."""


def known_model(name: str) -> KnownModel:
    """The model with a name.

    Raises:
        WeightsError: There is none; the message suggests a name that is spelled alike.
    """
    by_name = {model.name: model for model in KNOWN}
    if name in by_name:
        return by_name[name]
    raise WeightsError(
        f"there is no model {name!r}.{did_you_mean(name, by_name)} `finegrain pull` lists all "
        "names; a repository is given as owner/name, and files on this machine by --from PATH"
    )


def known_repositories() -> list[str]:
    """The repositories of all models, to suggest one whose name is spelled alike."""
    return [name for model in KNOWN for name in (model.repository, model.onnx) if name]


def is_free(licence: str) -> bool:
    """Whether a licence is MIT, Apache or BSD."""
    return licence.strip().lower() in _FREE


def best_models() -> frozenset[str]:
    """For each speed, the name of the most accurate model whose licence needs no acceptance."""
    measured = [m for m in KNOWN if m.flickr30k is not None and m.coco is not None]
    free = [m for m in measured if is_free(m.licence)]
    return frozenset(
        max((m for m in free if m.speed == speed), key=_accuracy).name
        for speed in {m.speed for m in free}
    )


def _accuracy(model: KnownModel) -> float:
    return (model.flickr30k or 0.0) + (model.coco or 0.0)
