"""Low-rank updates of frozen matrices (LoRA).

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

_UPDATED = re.compile(r"(?P<owner>.*\.|)parametrizations\.(?P<name>\w+)\.(?P<last>original|0\.\w+)")
"""Name of a tensor of an updated matrix, as ``torch.nn.utils.parametrize`` makes it."""


class LowRank(nn.Module):
    """Adds ``scale * up @ down`` to a matrix ``[rows, columns]`` (equation 3).

    ``up`` starts at zero, so that training begins with the unchanged matrix.

    Args:
        matrix: The frozen matrix.
        rank: Columns of ``up`` and rows of ``down``.
        alpha: ``scale`` is ``alpha / rank``.
    """

    def __init__(self, matrix: Tensor, *, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = matrix.shape
        self.down = nn.Parameter(matrix.new_empty(rank, columns))
        self.up = nn.Parameter(matrix.new_zeros(rows, rank))
        self.scale: Tensor
        self.register_buffer("scale", matrix.new_tensor(alpha / rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, matrix: Tensor) -> Tensor:
        return matrix + self.scale * (self.up @ self.down)


def add_low_rank(model: nn.Module, names: Sequence[str], *, rank: int, alpha: float) -> list[str]:
    """Give each matrix with a name like one of the shell patterns a low-rank update.

    Returns:
        Names of the matrices.
    """
    matrices = [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and any(fnmatchcase(name, pattern) for pattern in names)
    ]
    for name in matrices:
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        update = LowRank(getattr(module, attribute), rank=rank, alpha=alpha)
        register_parametrization(module, attribute, update)
    return matrices


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict whose low-rank updates are added to their matrices.

    A state dict without low-rank updates is returned as it is.
    """
    plain = {name: tensor for name, tensor in state.items() if not _UPDATED.fullmatch(name)}
    for name, original in state.items():
        match = _UPDATED.fullmatch(name)
        if match is None or match["last"] != "original":
            continue
        update = name.removesuffix("original") + "0"
        product = state[f"{update}.up"] @ state[f"{update}.down"]
        plain[match["owner"] + match["name"]] = original + state[f"{update}.scale"] * product
    return plain
