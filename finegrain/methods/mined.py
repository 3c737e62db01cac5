"""IRRA's towers trained with additional hard negatives; search uses the towers only."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.losses import exchanged, mined_tal, tal
from finegrain.losses.gather import gather
from finegrain.losses.mined_tal import Keys
from finegrain.methods import irra
from finegrain.methods.base import Batch
from finegrain.methods.hard_negatives import color_tokens, draw_hard_negatives, exchange_words
from finegrain.methods.irra import Irra, IrraConfig, Tokens, Views
from finegrain.methods.momentum import FeatureQueue, MomentumCopy
from finegrain.methods.two_towers import TwoTowers, check_losses, unit
from finegrain.models import ClipTextTower, ImageTower

LOSSES = (*irra.LOSSES, "tal", "queue", "itm", "swap")


@dataclass(frozen=True, kw_only=True)
class MinedConfig(IrraConfig):
    """IRRA's towers and heads, and the options for hard negatives.

    Attributes:
        temperature: Temperature of all losses and of the sampling of negatives.
        margin: Margin of ``tal`` and ``queue``, in cosines.
        decay: Decay of the momentum copy that fills the queues.
        queue: Number of features in each queue (one of pictures, one of captions).
        hardest: Number of negatives from batch and queue per query.
    """

    method_name: ClassVar[str] = "mined"
    head_losses: ClassVar[frozenset[str]] = frozenset({"id", "mlm", "itm"})

    margin: float = 0.1
    decay: float = 0.995
    queue: int = 16384
    hardest: int = 64

    def __post_init__(self) -> None:
        if self.queue < 1 or self.hardest < 1:
            raise RecipeError(
                f"expected queue and hardest of 1 or more, got {self.queue} and {self.hardest}; "
                "to train without a queue leave it out of the losses"
            )

    def tiny(self) -> Self:
        return replace(super().tiny(), queue=20, hardest=4)

    def build(self, losses: Collection[str] = ("tal", "queue")) -> Mined:
        """Build the towers, and the parts that the losses need.

        Raises:
            RecipeError: A loss is unknown, or needs tokens that the image tower does not give.
        """
        check_losses("Mined", losses, LOSSES)
        towers = self.image.build(self.embed_dim), self.text.build(self.embed_dim)
        return Mined(self, *towers, losses)


class Mined(Irra):
    """IRRA with up to four more losses, which use hard negatives.

    - ``tal`` is the triplet alignment loss of RDE within the batch.
    - ``queue`` is the same loss against the hardest of thousands of earlier features, which a
      momentum copy of the towers computed; see :func:`~finegrain.losses.mined_tal`.
    - ``itm`` classifies from the tokens whether a caption matches a picture; its negatives are
      similar pictures and captions (Li et al. 2021, ALBEF, section 3.2).
    - ``swap`` compares a caption with the same caption after two colours were exchanged.

    These losses are used in training only. Search uses the two towers, as in IRRA.
    """

    training_only = (
        *Irra.training_only,
        "match_head",
        "momentum",
        "image_queue",
        "text_queue",
    )
    token_losses: ClassVar[tuple[str, ...]] = ("mlm", "itm")

    config: MinedConfig

    def __init__(
        self,
        config: MinedConfig,
        image_tower: ImageTower,
        text_tower: ClipTextTower,
        losses: Collection[str],
    ) -> None:
        super().__init__(config, image_tower, text_tower, losses)
        width = config.embed_dim
        if "itm" in losses:
            self.match_head = nn.Linear(width, 1)
        if "queue" in losses:
            self.momentum = MomentumCopy(TwoTowers(image_tower, text_tower), decay=config.decay)
            self.image_queue = FeatureQueue(config.queue, width)
            self.text_queue = FeatureQueue(config.queue, width)
        if "swap" in losses:
            self.color_words: Tensor
            tokens = color_tokens(config.text.tokenizer())
            self.register_buffer("color_words", tokens, persistent=False)

    def start_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """At the start of a run, copy the pretrained weights into the momentum copy."""
        if epoch == 0 and "queue" in self.loss_names:
            self.momentum.restart(self)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        views, tokens = self._views(batch)
        losses = self._global_losses(views, batch.pids)
        if tokens is not None:
            fused = self._fused(tokens)
            if "mlm" in self.loss_names:
                losses["mlm"] = self._mlm(fused, tokens.masked)
            if "itm" in self.loss_names:
                losses["itm"] = self._itm(batch, views, tokens, fused)
        if "queue" in self.loss_names:
            losses["queue"] = self._queue(batch, views)
        if "swap" in self.loss_names:
            losses["swap"] = self._swap(batch, views)
        return losses

    def after_step(self) -> None:
        if "queue" in self.loss_names:
            self.momentum.update(self)
            self.image_queue.write()
            self.text_queue.write()

    def _global_losses(self, views: Views, pids: Tensor) -> dict[str, Tensor]:
        """Add ``tal``, divided by the temperature: in nats, on the scale of the other losses."""
        losses = super()._global_losses(views, pids)
        if "tal" in self.loss_names:
            t, margin = self.config.temperature, self.config.margin
            images, texts = unit(views.images), unit(views.texts)
            losses["tal"] = tal(images, texts, pids, temperature=t, margin=margin).mean() / t
        return losses

    def _queue(self, batch: Batch, views: Views) -> Tensor:
        pids = batch.pids
        text_pids = _caption_pids(pids, views)
        with torch.no_grad():
            image_keys = self.momentum.module.encode_images(batch.pixels)
            text_keys = self.momentum.module.encode_texts(batch.ids, batch.eot)
        to_texts = self._ranked(views.images, pids, text_keys, text_pids, self.text_queue)
        to_images = self._ranked(views.texts, text_pids, image_keys, pids, self.image_queue)
        self.image_queue.hold(image_keys, pids)
        self.text_queue.hold(text_keys, text_pids)
        return (to_texts + to_images) / self.config.temperature

    def _ranked(
        self, queries: Tensor, pids: Tensor, keys: Tensor, key_pids: Tensor, queue: FeatureQueue
    ) -> Tensor:
        config = self.config
        return mined_tal(
            unit(queries),
            pids,
            Keys(gather(keys), gather(key_pids)),
            Keys(queue.features, queue.ids),
            temperature=config.temperature,
            margin=config.margin,
            hardest=config.hardest,
        ).mean()

    def _itm(self, batch: Batch, views: Views, tokens: Tokens, fused: Tensor) -> Tensor:
        """Image-text matching: each caption with its picture and a wrong one, and vice versa.

        Negatives come from the same process, since tokens are not gathered.
        """
        pids, text_pids = batch.pids, _caption_pids(batch.pids, views)
        with torch.no_grad():
            logits = unit(views.images) @ unit(views.texts).T / self.config.temperature
        same = pids[:, None] == text_pids
        captions, has_caption = draw_hard_negatives(logits, same)
        pictures, has_picture = draw_hard_negatives(logits.T, same.T)
        rows = torch.arange(len(text_pids), device=pids.device)
        read = torch.cat([rows[has_picture], captions[has_caption]])
        seen = torch.cat([pictures[has_picture], rows[: len(pids)][has_caption]])
        texts = tokens.texts[read]
        wrong = self._matches(texts, self.fusion(texts, tokens.images[seen]), batch.eot[read])
        right = self._matches(tokens.texts, fused, batch.eot)
        scores = torch.cat([right, wrong])
        targets = torch.cat([torch.ones_like(right), torch.zeros_like(wrong)])
        return F.binary_cross_entropy_with_logits(scores, targets)

    def _matches(self, texts: Tensor, fused: Tensor, eot: Tensor) -> Tensor:
        """Match logits of pairs, ``[R]`` in fp32, from words and their fused tokens.

        The cross-former has no residual path from the words, so they are compared here.
        """
        is_word = torch.arange(texts.shape[1], device=texts.device) <= eot[:, None]
        agreement = self.fusion.ln_text(texts) * fused * is_word[..., None]
        mean = agreement.sum(dim=1) / is_word.sum(dim=1, keepdim=True)
        return self.match_head(mean)[:, 0].float()

    def _swap(self, batch: Batch, views: Views) -> Tensor:
        changed = exchange_words(batch.ids, self.color_words)
        negatives = self.encode_texts(changed.ids, batch.eot)
        return exchanged(
            unit(views.images),
            unit(views.texts),
            negatives,
            changed.exists,
            temperature=self.config.temperature,
        )


def _caption_pids(pids: Tensor, views: Views) -> Tensor:
    return pids.repeat_interleave(len(views.texts) // len(views.images))
