"""The colour tasks of LapsCore, which can be added to any method.

Source: Wu et al., "LapsCore: Language-guided Person Search via Color Reasoning", ICCV 2021,
https://openaccess.thecvf.com/ICCV2021.

The two tasks are those of the paper, as later papers describe them; its code is not released. The
networks, the colour space, the colour vocabulary and the masking of all colour words at once are
choices of finegrain. We therefore claim no result of the paper.

A recipe enables the tasks by the loss names ``colorize`` and ``color_words``.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from finegrain.data.lexicon import COLORS
from finegrain.errors import RecipeError
from finegrain.losses.color_words import color_words
from finegrain.losses.colorization import colorization, grey
from finegrain.methods.base import Batch
from finegrain.methods.token_masking import MASK, Masked
from finegrain.methods.two_towers import TwoTowers
from finegrain.models import ClipTextTower
from finegrain.models.lapscore import Colorizer, WordFiller
from finegrain.preprocess.clip_bpe import clip_tokenizer

COLOR_TASKS = ("colorize", "color_words")
PART = "colors"
"""Name of the submodule of a method that holds the heads."""


class ColorTasks(nn.Module):
    """The heads of the enabled tasks.

    ``colorize`` needs one more pass of the text tower, and ``color_words`` one more pass of both
    towers, since a method does not expose its intermediate results.
    """

    def __init__(self, width: int, vocabulary: int, tasks: Collection[str]) -> None:
        super().__init__()
        if "colorize" in tasks:
            self.colorizer = Colorizer(width)
        if "color_words" in tasks:
            words = color_word_ids()
            if vocabulary != clip_tokenizer().vocabulary_size:
                raise RecipeError(
                    f"color_words blanks words of CLIP's {clip_tokenizer().vocabulary_size} "
                    f"tokens, and the vocabulary has {vocabulary}; leave color_words out of the "
                    "losses"
                )
            self.word_filler = WordFiller(width, words=len(words))
            self.word_ids: Tensor
            self.register_buffer("word_ids", words, persistent=False)
        self.tasks = tuple(tasks)

    def forward(self, batch: Batch, method: TwoTowers) -> dict[str, Tensor]:
        """Compute the unweighted losses of the enabled tasks by the towers of a method."""
        image_tower, text_tower = method.image_tower, _clip_text_tower(method, self.tasks)
        losses: dict[str, Tensor] = {}
        if "colorize" in self.tasks:
            captions = text_tower(batch.ids, batch.eot)
            predicted = self.colorizer(grey(batch.pixels), captions)
            losses["colorize"] = colorization(predicted, batch.pixels)
        if "color_words" in self.tasks:
            blanked = blank_words(batch.ids, self.word_ids)
            blanks = blanked.targets > 0
            tokens = text_tower.tokens(blanked.ids)
            scores = self.word_filler(image_tower(batch.pixels), tokens, batch.eot, blanks)
            targets = torch.searchsorted(self.word_ids, blanked.targets[blanks].long())
            losses["color_words"] = color_words(scores, targets)
        return losses


def add_color_tasks(method: TwoTowers, tasks: Collection[str]) -> None:
    """Add the losses of colour tasks to those of a method.

    The towers and ``forward`` of the method do not change. The heads become its submodule
    :data:`PART`: they are saved, loaded and trained with it.

    Args:
        method: Any method; changed in place.
        tasks: Names from :data:`COLOR_TASKS`.

    Raises:
        RecipeError: The text tower is not CLIP's, or has another vocabulary.
    """
    text = _clip_text_tower(method, tasks)
    width, vocabulary = text.text_projection.shape[1], text.token_embedding.num_embeddings
    method.add_module(PART, ColorTasks(width, vocabulary, tasks))
    method.training_only = (*method.training_only, PART)
    method.register_forward_hook(_with_color_losses)


def blank_words(ids: Tensor, words: Tensor) -> Masked:
    """Mask every occurrence of the given words.

    Args:
        ids: Token ids ``[N, L]``.
        words: Ids of the words to mask, ``[W]``.
    """
    chosen = torch.isin(ids, words.to(ids.dtype))
    return Masked(ids.masked_fill(chosen, MASK), torch.where(chosen, ids, 0))


def color_word_ids() -> Tensor:
    """CLIP's ids of the colour words that are a single token, ascending, int64 ``[C]``."""
    words = [word for group in COLORS.values() for word in group]
    tokens = clip_tokenizer().encode(words)
    single = tokens.eot == 2  # start, the word, end
    return torch.from_numpy(tokens.ids[single, 1]).long().sort().values


def _with_color_losses(
    method: TwoTowers, inputs: tuple[Batch], losses: dict[str, Tensor]
) -> dict[str, Tensor]:
    (batch,) = inputs
    return losses | method.get_submodule(PART)(batch, method)


def _clip_text_tower(method: TwoTowers, tasks: Collection[str]) -> ClipTextTower:
    """The text tower of a method.

    Raises:
        RecipeError: It is not CLIP's.
    """
    tower = method.text_tower
    if not isinstance(tower, ClipTextTower):
        raise RecipeError(
            f"{' and '.join(tasks)} read captions by CLIP's text tower (TextConfig), and "
            f"{type(method).__name__} has the text tower {type(tower).__name__}; leave them out "
            "of the losses"
        )
    return tower
