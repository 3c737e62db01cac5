"""Heads for the two colour tasks of LapsCore (Wu et al., ICCV 2021), used in training only.

The tasks are those of the paper: colour a grey picture by its caption, and predict the masked
colour words of a caption by its picture. The networks are finegrain's own, since the paper's were
not available. Both tasks see the other modality through the embedding that search uses. This
embedding must therefore encode which object has which colour.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 8
"""Side, in pixels, of the square for which one colour is predicted."""

_HEAD_WIDTH = 64
_CHANNELS = (32, 64, 128)
_GROUPS = 8


class Modulated(nn.Module):
    """A residual convolution whose channels are scaled and shifted by a vector (FiLM).

    ``[N, C, H, W], [N, W] -> [N, C, H, W]``. Source: Perez et al. 2018,
    https://arxiv.org/abs/1709.07871.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        # Group normalisation does not depend on the batch: a batch of one picture works too.
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.told = nn.Linear(width, 2 * channels)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.told(vector)[..., None, None].chunk(2, dim=1)
        return x + F.gelu(self.norm(self.conv(x)) * (1 + scale) + shift)


class Colorizer(nn.Module):
    """Predict the chroma of a grey picture from its caption.

    The grey picture has its own small network. If the image tower also processed grey pictures,
    it would learn to ignore colours.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inputs = (3, *_CHANNELS[:-1])  # grey, row and column
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
        # Training starts from grey, which is closer to the target than random colours.
        nn.init.normal_(self.chroma.weight, std=1e-3)

    def forward(self, grey: Tensor, captions: Tensor) -> Tensor:
        """Predict a colour for each cell.

        Args:
            grey: Pictures in 0..1, ``[N, 1, H, W]``.
            captions: Embeddings of ``K`` captions of each picture, ``[K * N, D]``.

        Returns:
            ``[K * N, 2, ceil(H / 8), ceil(W / 8)]``.
        """
        x = self.grey_net(torch.cat([grey, _places(grey)], dim=1))
        x = x.repeat_interleave(len(captions) // len(grey), dim=0)
        vectors = self.norm(captions)
        for block in self.blocks:
            x = block(x, vectors)
        return self.chroma(x)


class WordFiller(nn.Module):
    """Predict masked colour words from the picture and the other words."""

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
        """Compute the logits of all colour words for each masked position.

        Args:
            images: Embeddings of ``N`` pictures, ``[N, D]``.
            tokens: Tokens of ``K`` masked captions of each picture, ``[K * N, L, D]``.
            eot: Position of each end-of-text token, ``[K * N]``; later tokens are ignored.
            blanks: True for masked positions, bool ``[K * N, L]``.

        Returns:
            Logits, ``[W, C]``, in the order of the masked positions.
        """
        pictures = images.repeat_interleave(len(tokens) // len(images), dim=0)
        x = self.norm(torch.cat([pictures[:, None], tokens], dim=1))
        padding = torch.arange(tokens.shape[1], device=eot.device) > eot[:, None]
        x = self.layer(x, src_key_padding_mask=F.pad(padding, (1, 0)))
        return self.words(self.ln_post(x[:, 1:][blanks]))


def _places(x: Tensor) -> Tensor:
    """Row and column of each pixel in -1..1, ``[N, 2, H, W]``.

    The position helps, since crops show upright people.
    """
    rows = torch.linspace(-1, 1, x.shape[2], device=x.device)
    columns = torch.linspace(-1, 1, x.shape[3], device=x.device)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
