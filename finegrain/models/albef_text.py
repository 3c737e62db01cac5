"""ALBEF's text tower: the lower half of a BERT. The upper half attends to pictures.

Source: Li et al. 2021 (ALBEF), https://arxiv.org/abs/2107.07651.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.models.fusion_bert import FusionBert, words_before
from finegrain.models.joint_bert import BertConfig, WordHead, scale_to_width
from finegrain.preprocess import Cleaning, Tokenizer
from finegrain.preprocess.cleaning import CLIP_CLEANING
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.preprocess.word_pieces import SPECIAL, word_piece_tokenizer


class SpecialIds(NamedTuple):
    """Ids of special tokens.

    Attributes:
        start: The first token, whose output represents the whole caption.
        hidden: The mask token.
        pad: The padding token; None if the vocabulary has none.
    """

    start: int
    hidden: int
    pad: int | None


CLIP_IDS = SpecialIds(start=49406, hidden=49405, pad=None)
"""Special ids of CLIP. It has no mask token: its last word is used, as in IRRA."""
BERT_IDS = SpecialIds(start=SPECIAL["[CLS]"], hidden=SPECIAL["[MASK]"], pad=SPECIAL["[PAD]"])
CLIP_WORDS = 49408


@dataclass(frozen=True, kw_only=True)
class AlbefTextConfig:
    """A BERT of two halves. The defaults are ALBEF's, based on BERT-base.

    Attributes:
        vocabulary_file: ``vocab.txt`` of BERT-base uncased. None uses the 49,408 tokens of CLIP,
            for training from random weights.
        context_length: Maximum number of tokens of a caption, including start and end. ALBEF has
            50 and no end token; finegrain adds an end token, which the towers ignore.
        training_length: The same for training, if it differs. The released code of RaSa keeps
            fifty words in training, however many tokens they have.
        positions: Number of position embeddings.
        depth, fusion_depth: Number of layers of the lower and of the upper half.
        dropout: Share of channels and of attention weights that training sets to zero.
        cleaning: How a caption is cleaned before it is split into tokens. The default applies to
            runs that do not state it; ALBEF's own is
            :data:`~finegrain.preprocess.cleaning.ALBEF_CLEANING`.
    """

    vocabulary_file: str | None = None
    vocabulary: int = 30522
    context_length: int = 51
    training_length: int | None = None
    positions: int = 512
    channels: int = 768
    depth: int = 6
    fusion_depth: int = 6
    heads: int = 12
    dropout: float = 0.1
    cleaning: Cleaning = CLIP_CLEANING

    def __post_init__(self) -> None:
        if self.vocabulary_file is None and self.vocabulary != CLIP_WORDS:
            raise RecipeError(
                f"without a vocabulary_file the words are CLIP's {CLIP_WORDS}, and the vocabulary "
                f"has {self.vocabulary}; give the file (vocab.txt of bert-base-uncased) as "
                "method.text.vocabulary_file, or set method.text.vocabulary to CLIP's"
            )
        longest = max(self.context_length, self.training_length or 0)
        if longest > self.positions:
            raise RecipeError(
                f"captions have up to {longest} tokens and there are {self.positions} positions; "
                f"set method.text.positions to {longest} or more"
            )
        if not self.fusion_depth:
            raise RecipeError("expected a fusion_depth of 1 or more, got 0")

    @property
    def special(self) -> SpecialIds:
        return CLIP_IDS if self.vocabulary_file is None else BERT_IDS

    def tiny(self) -> AlbefTextConfig:
        return replace(
            self,
            vocabulary_file=None,
            vocabulary=CLIP_WORDS,
            channels=32,
            depth=2,
            fusion_depth=2,
            heads=2,
        )

    def tokenizer(self) -> Tokenizer:
        """Make the tokenizer of this tower.

        Raises:
            DataError: The vocabulary cannot be read, or its special tokens have other ids than
                in BERT-base uncased.
            RecipeError: The vocabulary has another size than ``vocabulary``.
        """
        if self.vocabulary_file is None:
            return clip_tokenizer(self.context_length, cleaning=self.cleaning)
        tokenizer = word_piece_tokenizer(
            Path(self.vocabulary_file), self.context_length, self.cleaning
        )
        if tokenizer.vocabulary_size != self.vocabulary:
            raise RecipeError(
                f"{self.vocabulary_file} has {tokenizer.vocabulary_size} words and "
                f"method.text.vocabulary is {self.vocabulary}; set one to fit the other"
            )
        return tokenizer

    def training_tokenizer(self) -> Tokenizer:
        """Make the tokenizer for training, where captions may be longer."""
        length = self.training_length or self.context_length
        return replace(self, context_length=length).tokenizer()

    def build(self, embed_dim: int, *, looked_at: int) -> AlbefTextTower:
        """Build the tower; its upper half attends to tokens of width ``looked_at``."""
        return AlbefTextTower(self, embed_dim, looked_at=looked_at)


class AlbefTextTower(nn.Module):
    """``ids [N, L], eot [N] -> [N, D]``: the projected first token of the lower half.

    Tokens attend to those before the end-of-text token, but not to that token itself, since
    ALBEF was trained without one. Padding beyond it does not change the embedding.
    """

    def __init__(self, config: AlbefTextConfig, embed_dim: int, *, looked_at: int) -> None:
        super().__init__()
        lower = BertConfig(
            vocabulary=config.vocabulary,
            positions=config.positions,
            channels=config.channels,
            depth=config.depth,
            heads=config.heads,
            dropout=config.dropout,
        )
        self.bert = FusionBert(lower, fusion_depth=config.fusion_depth, looked_at=looked_at)
        # As in BERT, padding gets no gradient as an input, but it does as a prediction.
        self.bert.words.padding_idx = config.special.pad
        scale_to_width(self.bert, config.channels)
        self.word_head = WordHead(lower)
        self.proj = nn.Linear(config.channels, embed_dim)

    def forward(self, ids: Tensor, eot: Tensor) -> Tensor:
        return self.proj(self.bert.read(ids, words_before(eot, ids.shape[1]))[:, 0])

    def words(self, fused: Tensor) -> Tensor:
        """Compute word logits: fused tokens ``[..., W]`` to ``[..., V]``."""
        return self.word_head(fused, self.bert.words.weight)
