"""ITSELF: tokens chosen by the model's own attention, and identities of pairs.

Source: Nguyen et al., WACV 2026, https://arxiv.org/abs/2601.01024.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.losses import cid, identity
from finegrain.losses.cid import cid_pairs
from finegrain.losses.gather import gather
from finegrain.methods.base import Batch
from finegrain.methods.dual_embedding import DualEmbedding, DualEmbeddingConfig
from finegrain.methods.two_towers import check_losses
from finegrain.models import ClipTextTower, ImageTower, TextConfig, VitConfig
from finegrain.models.rollout import Rollout
from finegrain.zoo.itself import export_itself

LOSSES = ("tal_global", "tal_selected", "cid_global", "cid_selected", "id_global", "id_selected")
RANKINGS = LOSSES[:2]
HEADS = {"global": "global_heads", "selected": "selected_heads"}
"""Part of the method with the classifiers of each embedding."""


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """The share of the tokens that training selects, which falls geometrically.

    Attributes:
        start, end: Share before the first step, and after ``steps``.
        steps: Number of steps; the share is constant after them.
    """

    start: float = 0.65
    end: float = 0.5
    steps: int = 1450

    def share(self, step: int) -> float:
        """The share at a step, numbered from 1."""
        return self.start * (self.end / self.start) ** (min(step, self.steps) / self.steps)


@dataclass(frozen=True, kw_only=True)
class ItselfConfig(DualEmbeddingConfig):
    """The towers of ITSELF, the selection of tokens in training, and its classifiers.

    Attributes:
        selected_dim: Width of the embedding of the selected tokens.
        ratio: Share of the tokens that are selected in evaluation, by the attention of the last
            layer.
        rollout: The layers whose attention selects tokens in training. None takes the last layer.
        narrowing: The share of the tokens that is selected in training. None takes ``ratio``.
        identities: Number of people in the training split: 11,003 in CUHK-PEDES.
        wrong_class: Class of the pairs that do not match. ``last`` is one class after all
            identities. ``batch`` is the released code: the number after the largest identity of
            the batch, which is the class of another identity in most batches.
    """

    method_name: ClassVar[str] = "itself"
    head_losses: ClassVar[frozenset[str]] = frozenset(LOSSES).difference(RANKINGS)

    selected_dim: int = 4096
    ratio: float = 0.4
    rollout: Rollout | None = field(default_factory=Rollout)
    narrowing: Narrowing | None = field(default_factory=Narrowing)
    identities: int = 11003
    wrong_class: Literal["last", "batch"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollout is None:
            return
        towers = (self.image, self.text)
        depth = min(tower.depth for tower in towers if isinstance(tower, VitConfig | TextConfig))
        layers = self.rollout.layers
        if not layers or list(layers) != sorted(set(layers).intersection(range(depth))):
            raise RecipeError(
                f"expected method.rollout.layers in ascending order, from 0 to {depth - 1} in "
                f"towers of {depth} layers, got {list(layers)}"
            )

    def tiny(self) -> ItselfConfig:
        image, text = self.image.tiny(), self.text.tiny()
        rollout = None if self.rollout is None else replace(self.rollout, layers=(0, 1))
        return replace(
            self,
            image=image,
            text=text,
            global_dim=32,
            selected_dim=32,
            rollout=rollout,
            identities=48,
        )

    def build(self, losses: Collection[str] = LOSSES) -> Itself:
        """Build the towers, both token selections, and the classifiers that the losses need.

        Raises:
            RecipeError: A loss is unknown, ``tal_global`` or ``tal_selected`` is missing, or the
                image tower has no tokens.
        """
        check_losses("ITSELF", losses, LOSSES)
        if not set(RANKINGS).issubset(losses):
            raise RecipeError(
                f"ITSELF trains by {' and '.join(RANKINGS)} with or without other losses, since "
                f"search uses both embeddings; the recipe asks for {', '.join(losses)}"
            )
        towers = self.image.build(self.global_dim), self.text.build(self.global_dim)
        return Itself(self, *towers, losses)


class IdentityHeads(nn.Module):
    """The classifiers of one embedding, which only training uses.

    ``people`` classifies pictures and captions. ``pairs`` classifies pairs, after ``mix`` has
    combined the two parts of a pair: ``[R, 2 * D] -> [R, D]``.
    """

    def __init__(self, width: int, classes: int, losses: Collection[str]) -> None:
        super().__init__()
        if "cid" in losses:
            self.mix = nn.Sequential(nn.Linear(2 * width, width), nn.LayerNorm(width), nn.GELU())
            self.pairs = _classifier(width, classes)
        if "id" in losses:
            self.people = _classifier(width, classes)


class Itself(DualEmbedding):
    """RDE's embeddings, trained by ranking, identities, and identities of pairs.

    In training, an attention rollout over two layers selects tokens, and their share falls with
    the number of steps. In evaluation, the attention of the last layer selects a constant share.
    """

    training_only = (*HEADS.values(), "steps_done")
    title = "ITSELF"

    config: ItselfConfig

    def __init__(
        self,
        config: ItselfConfig,
        image_tower: ImageTower,
        text_tower: ClipTextTower,
        losses: Collection[str],
    ) -> None:
        super().__init__(config, image_tower, text_tower)
        self.loss_names = tuple(losses)
        for kind, width in (("global", config.global_dim), ("selected", config.selected_dim)):
            heads = [name for name in ("cid", "id") if f"{name}_{kind}" in losses]
            if heads:
                # The released code has one more class than people in both classifiers.
                self.add_module(HEADS[kind], IdentityHeads(width, config.identities + 1, heads))
        self.steps_done: Tensor
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def to_released(self) -> dict[str, Tensor]:
        return export_itself(self, without=("steps_done",))

    def check_identities(self, count: int) -> None:
        config = self.config
        if config.head_losses.intersection(self.loss_names) and count != config.identities:
            raise RecipeError(
                f"the identity losses are set up for {self.config.identities} people and the "
                f"training split has {count}; --set method.identities={count}"
            )

    @property
    def rollout(self) -> Rollout | None:
        return self.config.rollout if self.training else None

    @property
    def ratio(self) -> float:
        if not self.training or self.config.narrowing is None:
            return self.config.ratio
        return self.config.narrowing.share(int(self.steps_done) + 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses; the rankings are sums over the batch, as in RDE."""
        images, texts = self._views(batch)
        rankings = self._rankings(images, texts, batch.pids)
        losses = {name: loss.sum() for name, loss in zip(RANKINGS, rankings, strict=True)}
        for kind, image, text in zip(HEADS, images, texts, strict=True):
            if f"cid_{kind}" in self.loss_names:
                losses[f"cid_{kind}"] = self._cid(kind, image, text, batch.pids)
            if f"id_{kind}" in self.loss_names:
                people = self._heads(kind).people
                losses[f"id_{kind}"] = identity(people(image), people(text), batch.pids)
        return losses

    def _cid(self, kind: str, images: Tensor, texts: Tensor, pids: Tensor) -> Tensor:
        heads = self._heads(kind)
        pairs = cid_pairs(images, texts, pids, wrong=self._wrong_class(pids))
        first, swapped = (heads.pairs(heads.mix(pair)) for pair in pairs.both_orders())
        return cid(first, swapped, pairs.labels)

    def _heads(self, kind: str) -> IdentityHeads:
        heads = self.get_submodule(HEADS[kind])
        assert isinstance(heads, IdentityHeads)
        return heads

    def _wrong_class(self, pids: Tensor) -> Tensor:
        if self.config.wrong_class == "batch":
            return gather(pids).max() + 1
        return torch.tensor(self.config.identities, device=pids.device)

    def after_step(self) -> None:
        """Count the step, on which the share of selected tokens depends."""
        self.steps_done += 1


def _classifier(width: int, classes: int) -> nn.Linear:
    layer = nn.Linear(width, classes)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)
    return layer
