"""RDE: robust dual embedding. Two embeddings per picture and caption, and noisy pair detection.

Source: Qin et al., CVPR 2024, https://arxiv.org/abs/2308.09911.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.losses import tal
from finegrain.losses.gather import gather
from finegrain.methods.base import BaseConfig, Batch
from finegrain.methods.consensus import Consensus, Values, consensus
from finegrain.methods.token_masking import Disturbed, disturb_words
from finegrain.methods.two_towers import TwoTowers, unit
from finegrain.models import (
    ClipTextTower,
    ImageConfig,
    ImageTower,
    TextConfig,
    TokenTower,
    with_tokens,
)
from finegrain.models.token_selection import TokenSelection, allowed_patches, allowed_words
from finegrain.zoo.rde import export_rde

LOSSES = ("bge", "tse")
START_AND_END = 2


@dataclass(frozen=True, kw_only=True)
class RdeConfig(BaseConfig):
    """The towers of RDE and the options of its embeddings.

    Attributes:
        image, text: The towers; the defaults are CLIP ViT-B/16 at 384x128.
        global_dim: Width of the basic global embedding (BGE) of the towers.
        selected_dim: Width of the token selection embedding (TSE).
        ratio: Share of the tokens that TSE selects. For captions, it is a share of the context
            length.
        global_share: Share of BGE in the score; TSE has the rest. RDE takes the mean of both.
        temperature, margin: Options of the triplet alignment loss.
        disturb: Share of words that training masks, replaces or drops.
        short_captions: What fills the batch statistics of TSE if a caption has fewer words than
            TSE selects. ``words`` repeats one of the words, so that padding has no effect.
            ``padding`` reproduces the released code, which pads every caption to the context
            length.
        consensus: How wrong pairs are detected; this costs one more forward pass per epoch. None
            trusts all pairs.
        items: Number of pairs in the training split, which ``consensus`` needs: 68,126 in
            CUHK-PEDES.
    """

    method_name: ClassVar[str] = "rde"

    image: ImageConfig
    text: TextConfig
    global_dim: int = 512
    selected_dim: int = 1024
    ratio: float = 0.3
    global_share: float = 0.5
    temperature: float = 0.015
    margin: float = 0.1
    disturb: float = 0.2
    short_captions: Literal["words", "padding"] = "words"
    consensus: Consensus | None = field(default_factory=Consensus)
    items: int = 68126

    def __post_init__(self) -> None:
        if not 0 < self.global_share < 1:
            raise RecipeError(
                "expected method.global_share above 0 and below 1, because search uses both "
                f"embeddings; got {self.global_share}"
            )

    @property
    def embed_dim(self) -> int:
        """Width of the search embedding: both embeddings concatenated."""
        return self.global_dim + self.selected_dim

    def tiny(self) -> RdeConfig:
        return replace(
            self,
            image=self.image.tiny(),
            text=self.text.tiny(),
            global_dim=32,
            selected_dim=32,
            items=288,
        )

    def build(self, losses: Collection[str] = LOSSES) -> Rde:
        """Build the towers and both token selections.

        Raises:
            RecipeError: The losses are not ``bge`` and ``tse``, or the image tower has no tokens.
        """
        if set(losses) != set(LOSSES):
            raise RecipeError(
                f"RDE trains by the losses {' and '.join(LOSSES)}, since search uses both "
                f"embeddings; the recipe asks for {', '.join(losses) or 'none'}"
            )
        return Rde(self, self.image.build(self.global_dim), self.text.build(self.global_dim))


class Views(NamedTuple):
    """Both L2-normalised embeddings of pictures or of captions, ``[N, D]`` and ``[N, E]``."""

    bge: Tensor
    tse: Tensor

    def joined(self, share: float) -> Tensor:
        """Concatenate to one vector.

        An inner product is then ``share`` times the cosine of BGE plus ``1 - share`` times that
        of TSE.
        """
        return torch.cat([math.sqrt(share) * self.bge, math.sqrt(1 - share) * self.tse], dim=1)


class Rde(TwoTowers):
    """CLIP's towers with token selection, trained by the triplet alignment loss.

    Search uses one vector per picture and caption, ``[BGE, TSE] / sqrt(2)``. An inner product is
    then the score of the paper, the mean of the two cosines. Methods that are based on RDE have
    the same embeddings, and weigh them by ``global_share``.

    The released code has 3.158 M parameters besides the towers. It never uses 0.529 M of them: a
    linear layer for images and one normalisation for each modality. They are left out here.
    """

    training_only = ("trusted",)
    starts_fresh = ("image_selection", "text_selection")

    image_tower: TokenTower
    text_tower: ClipTextTower

    def __init__(
        self, config: RdeConfig, image_tower: ImageTower, text_tower: ClipTextTower
    ) -> None:
        token_tower = with_tokens(
            image_tower,
            reason="RDE selects among the tokens of a picture",
            advice="choose a VitConfig or a ConvConfig",
        )
        super().__init__(token_tower, text_tower)
        self.config = config
        self.image_selection = TokenSelection(config.global_dim, config.selected_dim)
        self.text_selection = TokenSelection(config.global_dim, config.selected_dim)
        self.trusted: Tensor | None
        # A buffer of the checkpoint: a run resumed within an epoch needs its division.
        trusted = None if config.consensus is None else torch.ones(config.items, dtype=torch.bool)
        self.register_buffer("trusted", trusted)
        self._noise = 0.0

    def encode_images(self, pixels: Tensor) -> Tensor:
        return self._images(pixels).joined(self.config.global_share)

    def encode_texts(self, ids: Tensor, eot: Tensor) -> Tensor:
        return self._texts(ids, eot).joined(self.config.global_share)

    def to_released(self) -> dict[str, Tensor]:
        return export_rde(self, without=self.training_only)

    def check_items(self, count: int) -> None:
        if self.trusted is not None and count != self.config.items:
            raise RecipeError(
                f"the consensus keeps account of {self.config.items} pairs and the training "
                f"split has {count}; --set method.items={count}"
            )

    def expect_noise(self, share: float) -> None:
        self._noise = share

    @torch.no_grad()
    def start_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """Divide the pairs into trusted and untrusted by one pass with the current weights.

        Pairs that are in no batch stay trusted; this epoch does not train on them.
        """
        config = self.config.consensus
        if self.trusted is None or config is None or epoch < config.start:
            return
        self.eval()
        seen, bge, tse = [], [], []
        for batch in batches:
            losses = self._item_losses(batch)
            seen.append(gather(batch.items).cpu())
            bge.append(gather(losses["bge"]).cpu())
            tse.append(gather(losses["tse"]).cpu())
        self.trusted.fill_(True)
        trusted = consensus(_values(bge), _values(tse), config.fit(self._noise), seed=epoch)
        self.trusted[torch.cat(seen)] = torch.from_numpy(trusted).to(self.trusted.device)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute both losses: sums, not means, over the trusted pairs, as in the paper."""
        losses = self._item_losses(batch)
        if self.trusted is not None:
            losses = {name: loss * self.trusted[batch.items] for name, loss in losses.items()}
        return {name: loss.sum() for name, loss in losses.items()}

    def _item_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute both losses of each picture with its captions, ``[N]``."""
        ids, eot = self._disturbed(batch)
        images, texts = self._images(batch.pixels), self._texts(ids, eot)
        return {
            name: tal(
                image,
                text,
                batch.pids,
                temperature=self.config.temperature,
                margin=self.config.margin,
            )
            for name, image, text in zip(LOSSES, images, texts, strict=True)
        }

    def _disturbed(self, batch: Batch) -> Disturbed:
        if not self.config.disturb:
            return Disturbed(batch.ids, batch.eot)
        return disturb_words(batch.ids, batch.eot, rate=self.config.disturb)

    def _images(self, pixels: Tensor) -> Views:
        attended = self.image_tower.attended(pixels)
        count = self._share(attended.tokens.shape[1] - 1)
        allowed = allowed_patches(attended)
        selected = self.image_selection(attended, allowed, count)
        return Views(unit(attended.tokens[:, 0]), unit(selected))

    def _texts(self, ids: Tensor, eot: Tensor) -> Views:
        context, fill = self.config.text.context_length, None
        padded = self.training and self.config.short_captions == "padding"
        if padded:
            ids = F.pad(ids, (0, context - ids.shape[1]))
        attended = self.text_tower.attended(ids, eot)
        if padded:
            fill = torch.arange(context, device=ids.device) > eot[:, None]
        rows = torch.arange(ids.shape[0], device=ids.device)
        count = self._share(context - START_AND_END)
        allowed = allowed_words(attended, eot)
        selected = self.text_selection(attended, allowed, count, fill=fill)
        return Views(unit(attended.tokens[rows, eot.long()]), unit(selected))

    def _share(self, tokens: int) -> int:
        return max(1, int(tokens * self.config.ratio))


def _values(losses: list[Tensor]) -> Values:
    return torch.cat(losses).double().numpy()
