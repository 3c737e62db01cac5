"""FashionBERT: a joint encoder of patches and words, with two towers as its retriever.

Source: Gao et al., SIGIR 2020, https://arxiv.org/abs/2005.09801.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.losses import adaptive_weights, gradient_norms, itc, masked_patches, sdm
from finegrain.methods.base import BaseConfig, Batch
from finegrain.methods.hard_negatives import Candidates, draw_candidates, given_candidates
from finegrain.methods.match_head import MatchOutput
from finegrain.methods.token_masking import Masked, clip_word_ends, mask_whole_words
from finegrain.methods.two_towers import TwoTowers, check_losses
from finegrain.models import ClipTextTower, ImageConfig, ImageTower, TextConfig
from finegrain.models.joint_bert import (
    BertConfig,
    JointBert,
    WordHead,
    initialise,
    scale_to_width,
)
from finegrain.models.patches import PatchConfig, PatchEncoder
from finegrain.zoo.hf_bert import load_bert_weights
from finegrain.zoo.timm_file import load_backbone_weights

LOSSES = ("sdm", "itc", "tia", "mlm", "mpm")
SEARCHED_BY: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "sdm": sdm,
    "itc": itc,
}
Weighting = Literal["fixed", "values", "gradients"]
Negatives = Literal["subcategory", "any", "mined"]


@dataclass(frozen=True, kw_only=True)
class FashionBertConfig(BaseConfig):
    """Two towers for retrieval, and a joint encoder that re-ranks their hits.

    Both use the tokens of CLIP. BERT's WordPiece would need a second vocabulary.

    Attributes:
        image, text: The towers. The paper has no towers and scores every pair by the encoder.
        temperature: Constant temperature of the towers' loss.
        patches: How pictures are cut into patches and encoded.
        joint: The encoder of patches and words.
        masked_patches: Number of patches that MPM masks: 5 of 64 in the released data, 10 % in
            the paper.
        mask_rate: Share of the words that MLM masks, as whole words, at most ten tokens.
        hide: Which passes see masked words and patches. ``everywhere`` is the released code: one
            pass serves all three tasks, and words are also predicted from wrong pictures.
            ``apart`` masks in a second pass over the matching pairs only. The match head then
            sees complete pairs, as in a search.
        weighting: How ``tia``, ``mlm`` and ``mpm`` are weighted. ``values`` is the adaptive loss
            of the released code, ``gradients`` that of the paper. Both return weighted losses:
            keep the recipe's weights at 1. ``fixed`` uses the weights of the recipe.
        negatives: Source of non-matching pairs. ``subcategory`` is the released data: a picture
            with a caption of another product of its sub-category, from the whole training split.
            ``any`` draws another product of the batch. ``mined`` also draws from the batch, with
            a higher probability for products that the towers find similar (ALBEF, Li et al.
            2021); such pairs are what a re-ranker sees in a search. ``any`` and ``mined`` prefer
            the same sub-category if the batch has another product of it.
        words: ``tower`` copies the word embeddings of the text tower into the joint encoder,
            which must have the same width. A short training then need not learn them again.
            ``own`` starts from random embeddings.
        patch_weights, bert_weights: Local weight files of timm and of Hugging Face. The word
            embeddings of BERT are not loaded.
    """

    method_name: ClassVar[str] = "fashionbert"
    head_losses: ClassVar[frozenset[str]] = frozenset({"mlm", "mpm"})

    image: ImageConfig
    text: TextConfig
    embed_dim: int = 512
    temperature: float = 0.02
    patches: PatchConfig = field(default_factory=PatchConfig)
    joint: BertConfig = field(default_factory=BertConfig)
    masked_patches: int = 5
    mask_rate: float = 0.15
    hide: Literal["everywhere", "apart"] = "everywhere"
    weighting: Weighting = "values"
    negatives: Negatives = "any"
    words: Literal["own", "tower"] = "own"
    patch_weights: str | None = None
    bert_weights: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.masked_patches <= self.patches.count:
            raise RecipeError(
                f"expected masked_patches from 1 to the {self.patches.count} patches of a "
                f"picture, got {self.masked_patches}"
            )
        if self.joint.vocabulary != self.text.vocabulary:
            raise RecipeError(
                f"the joint encoder uses the tokens of the text tower: expected a vocabulary of "
                f"{self.text.vocabulary}, got {self.joint.vocabulary}"
            )
        if self.words == "tower" and self.joint.channels != self.text.channels:
            raise RecipeError(
                f"words='tower' needs a joint encoder as wide as the text tower: expected "
                f"joint.channels of {self.text.channels}, got {self.joint.channels}"
            )
        if self.joint.positions < self.text.context_length:
            raise RecipeError(
                f"captions have up to {self.text.context_length} tokens and the joint encoder has "
                f"{self.joint.positions} positions; set method.joint.positions to "
                f"{self.text.context_length} or more"
            )

    def tiny(self) -> FashionBertConfig:
        return replace(
            self,
            image=self.image.tiny(),
            text=self.text.tiny(),
            embed_dim=32,
            patches=self.patches.tiny(),
            joint=self.joint.tiny(),
            masked_patches=1,
            patch_weights=None,
            bert_weights=None,
        )

    def build(self, losses: Collection[str] = ("sdm", "tia", "mlm", "mpm")) -> FashionBert:
        """Build the towers, the joint encoder, and the heads that the losses need.

        Raises:
            RecipeError: A loss is unknown, or no loss would train the towers or the encoder.
        """
        check_losses("FashionBERT", losses, LOSSES)
        if "tia" not in losses or SEARCHED_BY.keys().isdisjoint(losses):
            raise RecipeError(
                "FashionBERT searches by its towers and orders by its joint encoder: expected "
                f"the losses tia and one of {', '.join(SEARCHED_BY)}, got {', '.join(losses)}"
            )
        if self.hide == "apart" and {"mlm", "mpm"}.isdisjoint(losses):
            raise RecipeError(
                f"hide='apart' takes a pass for what is hidden, and of the losses "
                f"{', '.join(losses)} neither mlm nor mpm hides anything; leave hide out"
            )
        towers = self.image.build(self.embed_dim), self.text.build(self.embed_dim)
        return FashionBert(self, *towers, losses)


class FashionBert(TwoTowers):
    """Towers trained by ``sdm`` or ``itc``, and a re-ranker trained by ``tia``, ``mlm``, ``mpm``.

    :meth:`match_logits` is the model of the paper. With the paper's sizes and BERT's vocabulary
    it has 111.1 M parameters without the patch encoder and the heads.
    """

    training_only = ("word_head", "patch_head")
    starts_fresh = ("patches", "joint", "match_head")

    text_tower: ClipTextTower

    def __init__(
        self,
        config: FashionBertConfig,
        image_tower: ImageTower,
        text_tower: ClipTextTower,
        losses: Collection[str],
    ) -> None:
        super().__init__(image_tower, text_tower)
        self.config = config
        self.wants_wrong_captions = config.negatives == "subcategory"
        self.loss_names = tuple(losses)
        width = config.joint.channels
        self.patches = PatchEncoder(config.patches)
        features = self.patches.features
        self.joint = JointBert(config.joint, patches=config.patches.count, features=features)
        scale_to_width(self.joint, width)
        self.match_head = nn.Linear(width, 2)
        if "mlm" in losses:
            self.word_head = WordHead(config.joint)
            self.word_ends: Tensor
            self.register_buffer("word_ends", self._word_ends(), persistent=False)
        if "mpm" in losses:
            self.patch_head = nn.Linear(width, features, bias=False)
            initialise(self.patch_head)
        initialise(self.match_head)

    def match_logits(self, pixels: Tensor, ids: Tensor, eot: Tensor) -> Tensor:
        """Compute the match logit of each picture and its caption.

        Args:
            pixels: uint8 ``[N, 3, H, W]``.
            ids: Token ids ``[N, L]``.
            eot: Position of each end-of-text token, ``[N]``.

        Returns:
            Logits in fp32, ``[N]``; the sigmoid is the probability of a match.
        """
        return self._logits(self.joint(ids, eot, self.patches(pixels)))

    def match_tokens(self, pixels: Tensor) -> Tensor:
        """Embedded patches ``[N, P, W]``; they do not depend on the caption."""
        return self.joint.patch_embedding(self.patches(pixels))

    def encode_with_tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the tower ``[N, D]``, and embedded patches ``[N, P, W]``."""
        return self.encode_images(pixels), self.match_tokens(pixels)

    def match_of(self, ids: Tensor, eot: Tensor, tokens: Tensor) -> MatchOutput:
        """:meth:`match_logits` of one caption, ``[1, L]``, and the tokens of ``N`` pictures."""
        return MatchOutput(self._logits(self.joint.read(ids, eot, tokens)))

    @torch.no_grad()
    def start_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """At the start of a run, copy the word embeddings of the text tower if configured."""
        if epoch == 0 and self.config.words == "tower":
            own, learned = self.joint.bert.words.weight, self.text_tower.token_embedding.weight
            # Keep the scale of the initial values: positions and types are added to them.
            own.copy_(learned * (own.std() / learned.std()))

    def load_other_weights(self) -> None:
        """Load the weight files of the config into the patch encoder and the joint encoder.

        Raises:
            RecipeError: The patch encoder is frozen and would keep random weights.
            WeightsError: A file cannot be read, or does not fit.
        """
        if self.config.patches.frozen and self.config.patch_weights is None:
            raise RecipeError(
                "a frozen patch encoder keeps its weights, and these would be random: give a file "
                "as method.patch_weights, or let it learn: --set method.patches.frozen=false"
            )
        if self.config.patch_weights is not None:
            load_backbone_weights(self.patches.backbone, Path(self.config.patch_weights))
        if self.config.bert_weights is not None:
            load_bert_weights(self.joint.bert, Path(self.config.bert_weights), words=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images = self.encode_images(batch.pixels)
        texts = self.encode_texts(batch.ids, batch.eot)
        scale = torch.tensor(1 / self.config.temperature, device=images.device)
        tower_losses = {
            name: loss(images, texts, batch.pids, scale)
            for name, loss in SEARCHED_BY.items()
            if name in self.loss_names
        }
        is_mined = self.config.negatives == "mined"
        logits = scale * texts.detach() @ images.detach().T if is_mined else None
        return tower_losses | self._weighted(self._joint_losses(batch, logits))

    def _joint_losses(self, batch: Batch, logits: Tensor | None) -> dict[str, Tensor]:
        """Compute the losses of the joint encoder on matching and non-matching pairs.

        With ``hide="everywhere"``, matching and non-matching pairs are masked alike, so that
        masks tell nothing about whether a pair matches.
        """
        features = self.patches(batch.pixels)
        hidden = self._hide_patches(features)
        ids, eot, pairs = self._pairs(batch, logits)
        masked = self._hide_words(ids)
        shown = features.masked_fill(hidden[..., None], 0.0)
        if self.config.hide == "apart":
            # The matching pairs come first.
            masked_pairs = Candidates(*(rows[: len(batch.ids)] for rows in pairs))
            tokens = self._read(masked.ids, shown, eot, masked_pairs)
            match_tokens = self._read(ids, features, eot, pairs)
        else:
            masked_pairs = pairs
            tokens = match_tokens = self._read(masked.ids, shown, eot, pairs)
        losses = {"tia": F.cross_entropy(self._matches(match_tokens), pairs.matches)}
        length = ids.shape[1]
        if "mlm" in self.loss_names:
            losses["mlm"] = self._mlm(tokens[:, :length], masked.targets[masked_pairs.captions])
        if "mpm" in self.loss_names:
            losses["mpm"] = self._mpm(tokens[:, length:], hidden, features, masked_pairs)
        return losses

    def _pairs(self, batch: Batch, logits: Tensor | None) -> tuple[Tensor, Tensor, Candidates]:
        """Token ids and end positions of all captions, and the pairs to encode."""
        captions = len(batch.ids) // len(batch.pixels)
        if not self.wants_wrong_captions:
            pairs = draw_candidates(batch.pids, batch.groups, captions=captions, logits=logits)
            return batch.ids, batch.eot, pairs
        assert batch.wrong_ids is not None
        assert batch.wrong_eot is not None
        pairs = given_candidates(len(batch.ids), len(batch.wrong_ids), captions=captions)
        return (
            torch.cat([batch.ids, batch.wrong_ids]),
            torch.cat([batch.eot, batch.wrong_eot]),
            Candidates(*(rows.to(batch.ids.device) for rows in pairs)),
        )

    def _read(self, ids: Tensor, features: Tensor, eot: Tensor, pairs: Candidates) -> Tensor:
        return self.joint(ids[pairs.captions], eot[pairs.captions], features[pairs.pictures])

    def _mlm(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of the masked words; 0 if no word is masked."""
        at = targets > 0
        scores = self.word_head(tokens[at], self.joint.bert.words.weight).float()
        total = F.cross_entropy(scores, targets[at].long(), reduction="sum")
        return total / at.sum().clamp(min=1)

    def _mpm(self, tokens: Tensor, hidden: Tensor, features: Tensor, pairs: Candidates) -> Tensor:
        at = hidden[pairs.pictures]
        return masked_patches(self.patch_head(tokens[at]), features[pairs.pictures][at])

    def _weighted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weight the losses so that their sum is the adaptive loss."""
        weighting = self.config.weighting
        if weighting == "fixed":
            return losses
        values = list(losses.values())
        if weighting == "gradients":
            # The last layer represents all shared parameters (GradNorm, Chen et al. 2018,
            # https://arxiv.org/abs/1711.02257).
            strengths = gradient_norms(values, self.joint.bert.layers[-1].parameters())
        else:
            strengths = torch.stack(values)
        weights = adaptive_weights(strengths)
        return {name: weights[i] * loss for i, (name, loss) in enumerate(losses.items())}

    def _logits(self, tokens: Tensor) -> Tensor:
        scores = self._matches(tokens)
        return scores[:, 1] - scores[:, 0]

    def _matches(self, tokens: Tensor) -> Tensor:
        """Logits of "no match" and "match", ``[N, 2]``."""
        return self.match_head(self.joint.bert.pool(tokens)).float()

    def _hide_patches(self, features: Tensor) -> Tensor:
        """Draw the patches that MPM masks, bool ``[N, P]``: the same number in each picture."""
        draw = torch.rand(features.shape[:2], device=features.device)
        if "mpm" not in self.loss_names:
            return torch.zeros_like(draw, dtype=torch.bool)
        return draw.argsort(dim=1).argsort(dim=1) < self.config.masked_patches

    def _hide_words(self, ids: Tensor) -> Masked:
        if "mlm" not in self.loss_names:
            return Masked(ids, torch.zeros_like(ids))
        return mask_whole_words(ids, self.word_ends, rate=self.config.mask_rate)

    def _word_ends(self) -> Tensor:
        ends = clip_word_ends()
        if len(ends) != self.config.text.vocabulary:
            raise RecipeError(
                f"mlm hides whole words of CLIP's {len(ends)} tokens, and the vocabulary has "
                f"{self.config.text.vocabulary}; leave mlm out of the losses"
            )
        return torch.from_numpy(ends)
