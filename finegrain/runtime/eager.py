"""The eager runtime: a method in PyTorch, as training holds it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from finegrain.methods import Method


class EagerRuntime:
    """Runs a method in fp32, without gradients, on the device its weights are on."""

    def __init__(
        self, method: Method, *, embed_dim: int, device: str | torch.device = "cpu"
    ) -> None:
        self.method = method
        self.embed_dim = embed_dim
        self.device = torch.device(device)

    def close(self) -> None:
        """The method is its owner's; there is nothing to free."""

    @torch.inference_mode()
    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        embeddings = self.method.encode_images(torch.from_numpy(pixels).to(self.device))
        return embeddings.cpu().numpy()

    @torch.inference_mode()
    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        embeddings = self.method.encode_texts(
            torch.from_numpy(ids).to(self.device), torch.from_numpy(eot).to(self.device)
        )
        return embeddings.cpu().numpy()
