"""RaSa: relation and sensitivity aware representation learning.

Source: Bai et al., IJCAI 2023, https://arxiv.org/abs/2305.13653.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.losses import distilled_words, momentum_contrast, pair_matching, replaced_words
from finegrain.losses.distilled_words import DistillAxis
from finegrain.losses.gather import gather
from finegrain.losses.momentum_contrast import Pair
from finegrain.methods.base import BaseConfig, Batch
from finegrain.methods.hard_negatives import draw_hard_negatives
from finegrain.methods.match_head import MatchOutput
from finegrain.methods.momentum import FeatureQueue, MomentumCopy
from finegrain.methods.token_masking import Caption, hide_words, replace_words
from finegrain.methods.two_towers import TwoTowers, check_losses, unit
from finegrain.models import FusionTower
from finegrain.models.albef_image import AlbefImageConfig, AlbefImageTower, ConvImageConfig
from finegrain.models.albef_text import AlbefTextConfig, AlbefTextTower
from finegrain.models.conv_tower import ConvTower
from finegrain.models.fusion_bert import words_before
from finegrain.models.joint_bert import initialise
from finegrain.zoo.rasa import export_rasa

LOSSES = ("cl", "pitm", "mlm", "prd", "mrtd")


@dataclass(frozen=True, kw_only=True)
class RasaConfig(BaseConfig):
    """ALBEF's towers and the five tasks of RaSa. The defaults are those for CUHK-PEDES.

    Attributes:
        image: ALBEF's transformer, or a small network that trains from random weights.
        temperature: Initial value of the learned temperature.
        momentum: Decay of the momentum copies.
        queue: Number of earlier pictures, and of captions, that a step is compared with.
        softness: Largest weight of the momentum model in the targets of ``cl`` and ``mlm``.
        ramp: Number of steps in which that weight grows from 0; one epoch in the released code.
        mask_rate: Share of the words that ``mlm`` masks.
        replace_rate: Share of the words that are masked for the generator of ``mrtd``.
        distill_axis: See :func:`~finegrain.losses.distilled_words`; ``sequence`` reproduces the
            released code.
    """

    method_name: ClassVar[str] = "rasa"
    head_losses: ClassVar[frozenset[str]] = frozenset({"mlm", "prd", "mrtd"})

    image: AlbefImageConfig | ConvImageConfig = field(default_factory=AlbefImageConfig)
    text: AlbefTextConfig
    embed_dim: int = 256
    temperature: float = 0.07
    momentum: float = 0.995
    queue: int = 65536
    softness: float = 0.4
    ramp: int = 1310
    mask_rate: float = 0.15
    replace_rate: float = 0.3
    distill_axis: DistillAxis = "vocabulary"

    def tiny(self) -> RasaConfig:
        return replace(
            self,
            image=self.image.tiny(),
            text=self.text.tiny(),
            embed_dim=32,
            queue=50,
            ramp=5,
        )

    def build(self, losses: Collection[str] = LOSSES) -> Rasa:
        """Build the towers, their momentum copies, and the heads that the losses need.

        Raises:
            RecipeError: A loss is unknown, or ``cl`` or ``pitm`` is missing.
        """
        check_losses("RaSa", losses, LOSSES)
        if not {"cl", "pitm"}.issubset(losses):
            raise RecipeError(
                "RaSa searches by what cl trains and re-ranks by what pitm trains: expected both "
                f"among the losses, got {', '.join(losses)}"
            )
        image_tower = self.image.build(self.embed_dim)
        text_tower = self.text.build(self.embed_dim, looked_at=image_tower.token_width)
        return Rasa(self, image_tower, text_tower, losses)


class Rasa(TwoTowers):
    """Two towers for retrieval, and the upper half of BERT as a re-ranker.

    A batch has one or two captions per picture: the picture's own caption, and one of the same
    person that may describe another picture (:attr:`~finegrain.methods.Batch.replaced`).

    ``cl`` uses the momentum features of all processes and the queue. The released code uses those
    of its own process and the queue. The negatives of ``pitm`` come from the batch of the
    process, as in the released code.
    """

    training_only = ("prd_head", "mrtd_head", "image_queue", "text_queue", "steps_done")

    image_tower: AlbefImageTower | ConvTower
    text_tower: AlbefTextTower

    def __init__(
        self,
        config: RasaConfig,
        image_tower: AlbefImageTower | ConvTower,
        text_tower: AlbefTextTower,
        losses: Collection[str],
    ) -> None:
        super().__init__(image_tower, text_tower)
        self.config = config
        self.loss_names = tuple(losses)
        self.temperature = nn.Parameter(torch.tensor(config.temperature))
        self.itm_head = _head(config)
        if "prd" in losses:
            self.prd_head = _head(config)
        if "mrtd" in losses:
            self.mrtd_head = _head(config)
        # mrtd uses the word head of the momentum copy. A trainable parameter without a gradient
        # would stop a run with several processes.
        text_tower.word_head.requires_grad_("mlm" in losses)
        self.image_momentum = MomentumCopy(image_tower, decay=config.momentum)
        self.text_momentum = MomentumCopy(text_tower, decay=config.momentum)
        self.image_queue = FeatureQueue(config.queue, config.embed_dim)
        self.text_queue = FeatureQueue(config.queue, config.embed_dim)
        self.steps_done: Tensor
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def to_released(self) -> dict[str, Tensor]:
        return export_rasa(self)

    def match_tokens(self, pixels: Tensor) -> Tensor:
        """Compute the tokens of pictures: uint8 ``[N, 3, H, W]`` to ``[N, T, W]``."""
        return self.image_tower.tokens(pixels)

    def encode_with_tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embeddings ``[N, D]`` and tokens ``[N, T, W]`` in one pass of the tower."""
        tokens = self.match_tokens(pixels)
        return unit(self.image_tower.embedding_of(tokens)), tokens

    def match_of(self, ids: Tensor, eot: Tensor, tokens: Tensor) -> MatchOutput:
        """Score one caption with each of ``N`` pictures, for evaluation.

        The head has one logit for "match" and one for "no match". The sigmoid of their
        difference is the probability that the loss trains. The released code orders pictures by
        the "match" logit alone.

        Args:
            ids: Token ids ``[1, L]``.
            eot: Position of the end-of-text token, ``[1]``.
            tokens: Tokens of the pictures, ``[N, T, W]``.
        """
        bert, seen = self.text_tower.bert, words_before(eot, ids.shape[1])
        logits = self.itm_head(bert.fuse_one(bert.read(ids, seen), seen, tokens)).float()
        return MatchOutput(logits[:, 1] - logits[:, 0], scores=logits[:, 1])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        own, shared = self._captions(batch)
        bert = self.text_tower.bert
        tokens, words = self.image_tower.tokens(batch.pixels), bert.read(*shared)
        online = _features(self.image_tower, self.text_tower, tokens, words)
        with torch.no_grad():
            towers = self.image_momentum.module, self.text_momentum.module
            momentum_tokens = towers[0].tokens(mirror(batch.pixels))
            momentum = _features(*towers, momentum_tokens, towers[1].bert.read(*shared))
        losses = {"cl": self._contrast(online, momentum, batch.pids)}
        fused = bert.fuse(words, shared.seen, tokens)[:, 0]
        captions, pictures = self._wrong_pairs(online, momentum, batch.pids)
        wrong = bert.fuse(words[captions], shared.seen[captions], tokens[pictures])[:, 0]
        losses["pitm"] = pair_matching(self.itm_head(fused).float(), self.itm_head(wrong).float())
        if "prd" in self.loss_names:
            losses["prd"] = self._relation(fused, batch)
        if "mlm" in self.loss_names:
            losses["mlm"] = self._hidden_words(own, tokens, momentum_tokens)
        if "mrtd" in self.loss_names:
            losses["mrtd"] = self._replaced_words(own, tokens, momentum_tokens)
        return losses

    def start_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """Update the momentum copies once before the first step, as the released code does.

        The momentum copies in ALBEF's file differ from its towers, so this has an effect.
        """
        if epoch == 0:
            self._update_copies()

    def after_step(self) -> None:
        self._update_copies()
        self.image_queue.write()
        self.text_queue.write()
        self.steps_done += 1

    def _update_copies(self) -> None:
        self.image_momentum.update(self.image_tower)
        self.text_momentum.update(self.text_tower)

    @property
    def _softness(self) -> Tensor:
        return self.config.softness * (self.steps_done / self.config.ramp).clamp(max=1)

    def _captions(self, batch: Batch) -> tuple[Caption, Caption]:
        """Captions of the pictures themselves, and captions of their persons.

        Both are the same if a batch has one caption per picture.
        """
        count = len(batch.ids) // len(batch.pids)
        if count > 2:
            raise RecipeError(
                f"RaSa takes one or two captions of a picture, got {count}; set captions=1"
            )
        seen = words_before(batch.eot, batch.ids.shape[1])
        # The released tokenizer has no end token; it has padding there.
        ids = batch.ids.masked_fill(~seen, 0)
        return (
            Caption(ids[::count], seen[::count]).cropped(),
            Caption(ids[count - 1 :: count], seen[count - 1 :: count]).cropped(),
        )

    def _contrast(self, online: Pair, momentum: Pair, pids: Tensor) -> Tensor:
        keys = Pair(
            torch.cat([gather(momentum.images), self.image_queue.features]),
            torch.cat([gather(momentum.texts), self.text_queue.features]),
        )
        same = pids[:, None] == torch.cat([gather(pids), self.image_queue.ids])
        self.image_queue.hold(momentum.images, pids)
        self.text_queue.hold(momentum.texts, pids)
        return momentum_contrast(
            online, momentum, keys, same.float(), 1 / self.temperature, softness=self._softness
        )

    @torch.no_grad()
    def _wrong_pairs(self, online: Pair, momentum: Pair, pids: Tensor) -> tuple[Tensor, Tensor]:
        """Draw non-matching pairs: indices of captions, and indices of pictures.

        Each caption gets a wrong picture, and each picture gets a wrong caption. The probability
        grows with the similarity of the model's feature to the momentum model's feature. A batch
        with a single person gives no pairs.
        """
        same = pids[:, None] == pids
        wrong_pictures, _ = draw_hard_negatives(
            online.texts @ momentum.images.T / self.temperature, same
        )
        wrong_captions, _ = draw_hard_negatives(
            online.images @ momentum.texts.T / self.temperature, same
        )
        rows = (~same).any(dim=1).nonzero().flatten()
        return (
            torch.cat([rows, wrong_captions[rows]]),
            torch.cat([wrong_pictures[rows], rows]),
        )

    def _relation(self, fused: Tensor, batch: Batch) -> Tensor:
        """Classify whether a caption describes this picture or another picture of the person."""
        if batch.replaced is None:
            raise RecipeError(
                "prd tells a picture's own captions from those of the person's other pictures, "
                "and the batch has none of these; set weak_positives above 0, or leave prd out"
            )
        return F.cross_entropy(self.prd_head(fused).float(), batch.replaced.long())

    def _hidden_words(self, own: Caption, tokens: Tensor, momentum_tokens: Tensor) -> Tensor:
        config = self.config
        masked = hide_words(
            own,
            rate=config.mask_rate,
            special=config.text.special,
            vocabulary=config.text.vocabulary,
        )
        read = _fused(self.text_tower, masked.ids, own.seen, tokens)
        with torch.no_grad():
            tower = self.text_momentum.module
            guess = _fused(tower, masked.ids, own.seen, momentum_tokens)
        targets, hidden = own.ids, masked.at
        if config.distill_axis == "vocabulary":
            # Compute the V logits of masked words only.
            read, guess = read[hidden][None], guess[hidden][None]
            targets, hidden = targets[hidden][None], hidden[hidden][None]
        with torch.no_grad():
            guesses = tower.words(guess).float().softmax(dim=-1)
        return distilled_words(
            self.text_tower.words(read).float(),
            guesses,
            targets,
            hidden,
            softness=self._softness,
            axis=config.distill_axis,
        )

    def _replaced_words(self, own: Caption, tokens: Tensor, momentum_tokens: Tensor) -> Tensor:
        config = self.config
        with torch.no_grad():
            masked = hide_words(
                own,
                rate=config.replace_rate,
                special=config.text.special,
                vocabulary=config.text.vocabulary,
            )
            tower = self.text_momentum.module
            likely = tower.words(_fused(tower, masked.ids, own.seen, momentum_tokens))
            drawn = replace_words(likely, own, special=config.text.special)
        read = _fused(self.text_tower, drawn.ids, own.seen, tokens)
        logits = self.mrtd_head(read).float()
        return replaced_words(logits, drawn.ids != own.ids, drawn.at)


def mirror(pixels: Tensor) -> Tensor:
    """Mirror each picture with probability 1/2: an augmentation independent of the loader's."""
    coin = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5
    return torch.where(coin, pixels.flip(3), pixels)


def _features(
    image_tower: FusionTower, text_tower: AlbefTextTower, tokens: Tensor, words: Tensor
) -> Pair:
    """Embeddings of pictures and captions from their tokens."""
    return Pair(unit(image_tower.embedding_of(tokens)), unit(text_tower.proj(words[:, 0])))


def _fused(tower: AlbefTextTower, ids: Tensor, seen: Tensor, tokens: Tensor) -> Tensor:
    return tower.bert.fuse(tower.bert.read(ids, seen), seen, tokens)


def _head(config: RasaConfig) -> nn.Linear:
    head = nn.Linear(config.text.channels, 2)
    initialise(head)
    return head
