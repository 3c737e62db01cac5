"""The Triton runtime: a Triton Inference Server runs the towers, over gRPC.

The client needs the plan for its tokenizer, picture size and gallery. It sends token ids and pixels
to the server, and receives embeddings. It uses gRPC instead of HTTP because threads can share a
channel and the client has fewer dependencies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import PlanError, QueryError, require
from finegrain.plan import Plan
from finegrain.runtime.base import TRITON
from finegrain.runtime.tensorrt.build import LENGTHS

DEFAULT_PORT = 8001
TIMEOUT = 30.0
"""Timeout of a request in seconds; enough for a batch of pictures on a busy CPU."""
FINGERPRINT = "fingerprint"
"""Parameter of a model's configuration that states the plan it was exported from."""
OUTPUT = "embeddings"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_DATATYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.int32): "INT32"}
# The default limit of gRPC is 4 MiB; wide embeddings of a large batch exceed it.
_MAX_ANSWER_BYTES = 64 << 20
_AGAIN = "If its model repository was changed, write it again: finegrain export RUN triton"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonAddress:
    """Address of the towers on a server, such as ``triton://host:8001/people``.

    Attributes:
        server: Host and gRPC port.
        name: Name in the model repository; its models are ``<name>_text`` and
            ``<name>_image``.
    """

    server: str
    name: str

    @classmethod
    def parse(cls, address: str) -> Self:
        """Parse an address; the default port is 8001.

        Raises:
            PlanError: The address is invalid.
        """
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port or DEFAULT_PORT
        except ValueError:
            host = None
        if not host or f"{parts.scheme}://" != TRITON or "@" in parts.netloc:
            raise _not_an_address(address)
        name = parts.path.strip("/")
        if parts.query or parts.fragment or not is_model_name(name):
            raise _not_an_address(address)
        return cls(server=f"[{host}]:{port}" if ":" in host else f"{host}:{port}", name=name)


def is_model_name(name: str) -> bool:
    """Whether ``name`` is valid as a model name, a folder name, and the path of an address."""
    return _NAME.fullmatch(name) is not None


def text_model(name: str) -> str:
    return f"{name}_text"


def image_model(name: str) -> str:
    return f"{name}_image"


def padded_lengths(context_length: int) -> tuple[int, ...]:
    """Lengths to which captions are padded.

    Triton batches only requests of equal shapes, so without padding, captions of different users
    would rarely be in one batch. Zeros after the end of text do not change embeddings: a tower
    receives the end-of-text position, and attention is causal.
    """
    return (*(length for length in LENGTHS if length < context_length), context_length)


class TritonRuntime:
    """Runs the towers of a plan on a Triton server.

    Any thread may call it. A failed request is not sent again. The plan of the server is checked
    only when the runtime is opened, so serve another plan under another name.

    Args:
        plan: The plan from which the server's model repository was exported.
        address: Address such as ``triton://host:8001/people``.
        timeout: Timeout of a request in seconds.

    Raises:
        PlanError: The server cannot be reached, or its models are not ready or of another plan.
        MissingExtraError: tritonclient or gRPC is not installed.
    """

    def __init__(self, plan: Plan, address: str, *, timeout: float = TIMEOUT) -> None:
        parsed = TritonAddress.parse(address)
        self.embed_dim = plan.manifest.embed_dim
        self._lengths = padded_lengths(plan.manifest.context_length)
        self._server = _Server(parsed.server, timeout)
        try:
            self._text = _Model(self._server, text_model(parsed.name), plan)
            self._image = _Model(self._server, image_model(parsed.name), plan)
        except PlanError:
            self._server.close()
            raise

    def close(self) -> None:
        """Close the channel; running requests are cancelled."""
        self._server.close()

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode pictures, uint8 ``[N, 3, H, W]``, to float32 ``[N, D]``.

        The runtime sends batches of the size that the server accepts.

        Raises:
            PlanError: The server does not answer, or not with what the plan promises.
        """
        return self._image.run({"pixels": pixels})

    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        """Encode captions, int32 ``[N, L]`` and ``[N]``, to float32 ``[N, D]``.

        The runtime sends batches of the size that the server accepts.

        Raises:
            QueryError: Captions are longer than the plan's context.
            PlanError: The server does not answer, or not with what the plan promises.
        """
        rows, length = ids.shape
        if length > self._lengths[-1]:
            raise QueryError(
                f"expected captions of at most {self._lengths[-1]} tokens, got {length}"
            )
        padded = np.zeros((rows, min(n for n in self._lengths if n >= length)), np.int32)
        padded[:, :length] = ids
        return self._text.run({"ids": padded, "eot": eot[:, None]})


class _Model:
    """One model of the server, checked to be ready and of the right plan."""

    def __init__(self, server: _Server, name: str, plan: Plan) -> None:
        self._server, self._name = server, name
        self._where = f"{TRITON}{server.target}: {name}"
        self._embed_dim = plan.manifest.embed_dim
        messages = server.messages
        if not self._ask("ModelReady", messages.ModelReadyRequest(name=name)).ready:
            raise PlanError(
                f"{self._where} is not there or not ready. Look into the server's log; it takes "
                "the name before _text and _image from the folders of its model repository."
            )
        config = self._ask("ModelConfig", messages.ModelConfigRequest(name=name)).config
        _check_plan(config.parameters[FINGERPRINT].string_value, plan, self._where)
        self._max_batch = config.max_batch_size
        if self._max_batch < 1:
            raise PlanError(
                f"{self._where} has max_batch_size {self._max_batch}, expected 1 or more. {_AGAIN}"
            )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Embeddings ``[N, D]`` of any number of rows."""
        rows = len(next(iter(inputs.values())))
        embeddings = np.empty((rows, self._embed_dim), np.float32)
        for start in range(0, rows, self._max_batch):
            part = slice(start, start + self._max_batch)
            embeddings[part] = self._infer({name: array[part] for name, array in inputs.items()})
        return embeddings

    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        rows = len(next(iter(inputs.values())))
        request = self._server.messages.ModelInferRequest
        answer = self._ask(
            "ModelInfer",
            request(
                model_name=self._name,
                inputs=[
                    request.InferInputTensor(
                        name=name, datatype=_DATATYPES[array.dtype], shape=array.shape
                    )
                    for name, array in inputs.items()
                ],
                outputs=[request.InferRequestedOutputTensor(name=OUTPUT)],
                raw_input_contents=[array.tobytes() for array in inputs.values()],
            ),
        )
        expected = [(OUTPUT, "FP32", [rows, self._embed_dim])]
        got = [(out.name, out.datatype, list(out.shape)) for out in answer.outputs]
        sizes = [len(content) for content in answer.raw_output_contents]
        if got != expected or sizes != [rows * self._embed_dim * 4]:
            raise PlanError(
                f"{self._where} gives {got!s:.200} in {sizes} bytes, expected {expected}. {_AGAIN}"
            )
        embeddings = np.frombuffer(answer.raw_output_contents[0], "<f4")
        return embeddings.reshape(rows, self._embed_dim)

    def _ask(self, method: str, request: Any) -> Any:
        return self._server.ask(method, request, self._where)


def _check_plan(fingerprint: str, plan: Plan, where: str) -> None:
    expected = plan.manifest.fingerprint
    if fingerprint != expected:
        theirs = f"plan {fingerprint[:12]}" if fingerprint else "no plan that it names"
        raise PlanError(
            f"{where} was written from {theirs}, and {plan.path} is plan {expected[:12]}; their "
            "embeddings do not compare. Open the plan that the server's repository was written "
            "from, or serve this one by a name of its own."
        )


class _Server:
    """A gRPC channel whose errors include advice."""

    def __init__(self, target: str, timeout: float) -> None:
        self._grpc: Any = require("grpc", "triton")
        client: Any = require("tritonclient.grpc", "triton")
        self.target = target
        self.messages = client.service_pb2
        self._timeout = timeout
        self._channel = self._grpc.insecure_channel(
            target, options=[("grpc.max_receive_message_length", _MAX_ANSWER_BYTES)]
        )
        # Unlike the client class of tritonclient, threads may share the generated stub.
        self._stub = client.service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def ask(self, method: str, request: Any, where: str) -> Any:
        """One call; ``where`` names the model in errors."""
        try:
            return getattr(self._stub, method)(request, timeout=self._timeout)
        except self._grpc.RpcError as error:
            raise PlanError(f"{where}: {self._reason(error)}") from error
        # gRPC raises ValueError for a closed channel.
        except ValueError as error:
            raise PlanError(f"{where}: {error}. Open the plan again.") from error

    def _reason(self, error: Any) -> str:
        codes = self._grpc.StatusCode
        if error.code() == codes.UNAVAILABLE:
            return (
                f"the server cannot be reached or takes no more requests ({error.details()}). See "
                f"that it runs, and that this is its gRPC port (usually {DEFAULT_PORT})."
            )
        if error.code() == codes.DEADLINE_EXCEEDED:
            return (
                f"no answer within {self._timeout:g} s. See that the address is right, and that "
                "the server keeps up with what is asked of it."
            )
        return f"{error.code().name}: {error.details()}. {_AGAIN}"


def _not_an_address(address: str) -> PlanError:
    return PlanError(
        f"expected the address of a Triton server such as {TRITON}host:{DEFAULT_PORT}/people, "
        f"got {address!r:.100}. The name is what the model repository was written as."
    )
