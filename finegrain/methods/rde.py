"""RDE: robust dual embedding. Two embeddings per picture and caption, and noisy pair detection.

Source: Qin et al., CVPR 2024, https://arxiv.org/abs/2308.09911.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from finegrain.errors import RecipeError
from finegrain.losses.gather import gather
from finegrain.methods.base import Batch
from finegrain.methods.consensus import Consensus, Values, consensus
from finegrain.methods.dual_embedding import DualEmbedding, DualEmbeddingConfig
from finegrain.models import ClipTextTower, ImageTower
from finegrain.zoo.rde import export_rde

LOSSES = ("bge", "tse")


@dataclass(frozen=True, kw_only=True)
class RdeConfig(DualEmbeddingConfig):
    """The towers of RDE and the options of its embeddings.

    The global embedding is the paper's basic global embedding (BGE), and that of the selected
    tokens is its token selection embedding (TSE). RDE takes the mean of both cosines.

    Attributes:
        consensus: How wrong pairs are detected; this costs one more forward pass per epoch. None
            trusts all pairs.
        items: Number of pairs in the training split, which ``consensus`` needs: 68,126 in
            CUHK-PEDES.
    """

    method_name: ClassVar[str] = "rde"

    consensus: Consensus | None = field(default_factory=Consensus)
    items: int = 68126

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


class Rde(DualEmbedding):
    """CLIP's towers with token selection, trained by the triplet alignment loss.

    The released code has 3.158 M parameters besides the towers. It never uses 0.529 M of them: a
    linear layer for images and one normalisation for each modality. They are left out here.
    """

    training_only = ("trusted",)
    title = "RDE"

    config: RdeConfig

    def __init__(
        self, config: RdeConfig, image_tower: ImageTower, text_tower: ClipTextTower
    ) -> None:
        super().__init__(config, image_tower, text_tower)
        self.trusted: Tensor | None
        # A buffer of the checkpoint: a run resumed within an epoch needs its division.
        trusted = None if config.consensus is None else torch.ones(config.items, dtype=torch.bool)
        self.register_buffer("trusted", trusted)
        self._noise = 0.0

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
        images, texts = self._views(batch)
        return dict(zip(LOSSES, self._rankings(images, texts, batch.pids), strict=True))


def _values(losses: list[Tensor]) -> Values:
    return torch.cat(losses).double().numpy()
