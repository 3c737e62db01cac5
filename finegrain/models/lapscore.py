"""Heads for the two colour tasks of LapsCore (Wu et al., ICCV 2021); they serve training only.

Of the paper are the two tasks: give a grey picture its colours by the caption, and fill a
caption's blanked colour words by the picture. The nets are ours: the paper's were not at
hand. In ours both tasks see the other side as the one vector that search uses, so that this
vector must hold which thing has which colour.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 8
"""Pixels of a picture, each way, for which one colour is predicted."""

_HEAD_WIDTH = 64
_CHANNELS = (32, 64, 128)
_GROUPS = 8


class Modulated(nn.Module):
    """A convolution whose channels a vector strengthens, weakens and shifts (Perez et al. 2018).

    ``[N, C, H, W], [N, W] -> [N, C, H, W]``, added to its input.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        # No batch statistics: a step of one picture trains like any other.
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.told = nn.Linear(width, 2 * channels)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.told(vector)[..., None, None].chunk(2, dim=1)
        return x + F.gelu(self.norm(self.conv(x)) * (1 + scale) + shift)


class Colorizer(nn.Module):
    """Chroma of a grey picture by what its caption says.

    The grey picture has a small net of its own: an image tower that also had to do without
    colours would learn to.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inputs = (3, *_CHANNELS[:-1])  # grey, and where in the picture it is
        self.grey_net = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, stride=2, padding=1),
                    nn.GroupNorm(_GROUPS, after),
                    nn.GELU(),
                )
                for before, after in zip(inputs, _CHANNELS, strict=True)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Modulated(_CHANNELS[-1], width) for _ in range(2))
        self.chroma = nn.Conv2d(_CHANNELS[-1], 2, 1, bias=False)
        # Training starts from grey, which is nearer than any guess.
        nn.init.normal_(self.chroma.weight, std=1e-3)

    def forward(self, grey: Tensor, captions: Tensor) -> Tensor:
        """Predict a colour for each cell.

        Args:
            grey: Pictures in 0..1, ``[N, 1, H, W]``.
            captions: Embeddings of ``K`` captions of each, ``[K * N, D]``.

        Returns:
            ``[K * N, 2, ceil(H / 8), ceil(W / 8)]``.
        """
        x = self.grey_net(torch.cat([grey, _places(grey)], dim=1))
        x = x.repeat_interleave(len(captions) // len(grey), dim=0)
        told = self.norm(captions)
        for block in self.blocks:
            x = block(x, told)
        return self.chroma(x)


class WordFiller(nn.Module):
    """Which colour word stood at each blank, by the picture and the words around it."""

    def __init__(self, width: int, *, words: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer = nn.TransformerEncoderLayer(
            width,
            max(1, width // _HEAD_WIDTH),
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.ln_post = nn.LayerNorm(width)
        self.words = nn.Linear(width, words)

    def forward(self, images: Tensor, tokens: Tensor, eot: Tensor, blanks: Tensor) -> Tensor:
        """Scores of all colour words for each blank.

        Args:
            images: Embeddings of ``N`` pictures, ``[N, D]``.
            tokens: Of ``K`` blanked captions of each, ``[K * N, L, D]``.
            eot: Position of each end-of-text; what comes after it is not looked at.
            blanks: Where the blanks are, bool ``[K * N, L]``.

        Returns:
            ``[W, C]``, in the order of the blanks.
        """
        shown = images.repeat_interleave(len(tokens) // len(images), dim=0)
        x = self.norm(torch.cat([shown[:, None], tokens], dim=1))
        padding = torch.arange(tokens.shape[1], device=eot.device) > eot[:, None]
        x = self.layer(x, src_key_padding_mask=F.pad(padding, (1, 0)))
        return self.words(self.ln_post(x[:, 1:][blanks]))


def _places(x: Tensor) -> Tensor:
    """Row and column of each pixel in -1..1, ``[N, 2, H, W]``: crops are of upright people."""
    rows = torch.linspace(-1, 1, x.shape[2], device=x.device)
    columns = torch.linspace(-1, 1, x.shape[3], device=x.device)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
