"""The client with a stand-in server: real gRPC, and answers that a test can change."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.encoder import Encoder
from finegrain.errors import MissingExtraError, PlanError, QueryError
from finegrain.plan import Plan
from finegrain.runtime.triton import TritonAddress, TritonRuntime, padded_lengths

grpc = pytest.importorskip("grpc", reason='gRPC is absent: "finegrain[triton]"')
client = pytest.importorskip("tritonclient.grpc", reason='absent: "finegrain[triton]"')
messages, services = client.service_pb2, client.service_pb2_grpc

DIM = 32
NUMBERS = {"UINT8": np.uint8, "INT32": np.int32}


class StandIn(services.GRPCInferenceServiceServicer):
    """Answers like Triton; each value of an embedding is the sum of the inputs of its row."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprints = {"people_text": fingerprint, "people_image": fingerprint}
        self.max_batch = 4
        self.ready = True
        self.requests: list[dict[str, np.ndarray]] = []
        self.spoil = lambda answer: None
        self.refuse: tuple[grpc.StatusCode, str] | None = None
        self.hold = threading.Event()
        self.hold.set()

    def ModelReady(self, request, context):  # noqa: N802
        return messages.ModelReadyResponse(ready=self.ready and request.name in self.fingerprints)

    def ModelConfig(self, request, context):  # noqa: N802
        answer = messages.ModelConfigResponse()
        answer.config.max_batch_size = self.max_batch
        if fingerprint := self.fingerprints[request.name]:
            answer.config.parameters["fingerprint"].string_value = fingerprint
        return answer

    def ModelInfer(self, request, context):  # noqa: N802
        self.hold.wait()
        if self.refuse:
            context.abort(*self.refuse)
        inputs = {
            tensor.name: np.frombuffer(content, NUMBERS[tensor.datatype]).reshape(tensor.shape)
            for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        self.requests.append(inputs)
        rows = len(next(iter(inputs.values())))
        sums = sum(array.reshape(rows, -1).sum(1, dtype=np.float32) for array in inputs.values())
        answer = messages.ModelInferResponse(
            outputs=[
                messages.ModelInferResponse.InferOutputTensor(
                    name="embeddings", datatype="FP32", shape=[rows, DIM]
                )
            ],
            raw_output_contents=[np.repeat(sums[:, None], DIM, 1).astype("<f4").tobytes()],
        )
        self.spoil(answer)
        return answer


@pytest.fixture
def server(tiny_plan) -> Iterator[tuple[StandIn, str]]:
    """The stand-in and its address."""
    stand_in = StandIn(Plan(tiny_plan).manifest.fingerprint)
    running = grpc.server(ThreadPoolExecutor(4))
    services.add_GRPCInferenceServiceServicer_to_server(stand_in, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield stand_in, f"triton://127.0.0.1:{port}/people"
    stand_in.hold.set()
    running.stop(None).wait()


@pytest.fixture
def runtime(server, tiny_plan) -> Iterator[TritonRuntime]:
    runtime = TritonRuntime(Plan(tiny_plan), server[1], timeout=120)
    yield runtime
    runtime.close()


def caption(rows: int = 1, length: int = 5) -> tuple[np.ndarray, np.ndarray]:
    ids = np.arange(rows * length, dtype=np.int32).reshape(rows, length)
    return ids, np.full(rows, length - 1, np.int32)


def test_the_address_of_a_server_is_a_runtime(server, tiny_plan):
    encoder = Encoder.from_plan(Plan(tiny_plan), runtime=server[1])
    assert isinstance(encoder.runtime, TritonRuntime)
    assert encoder.encode_texts(["red coat", "a"]).shape == (2, DIM)
    encoder.runtime.close()


@pytest.mark.parametrize(
    ("length", "sent"), [(1, 16), (16, 16), (17, 32), (32, 32), (33, 77), (77, 77)]
)
def test_captions_are_padded_with_zeros_to_common_lengths(runtime, server, length, sent):
    ids, eot = caption(2, length)
    embeddings = runtime.encode_texts(ids, eot)
    (request,) = server[0].requests
    assert request["ids"].shape == (2, sent)
    assert request["eot"].shape == (2, 1)
    np.testing.assert_array_equal(request["ids"][:, :length], ids)
    assert not request["ids"][:, length:].any()
    np.testing.assert_array_equal(embeddings[:, 0], ids.sum(1) + eot)


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 11])
def test_large_batches_are_sent_in_parts(runtime, server, rows):
    pixels = np.random.default_rng(0).integers(0, 256, (rows, 3, 128, 64), np.uint8)
    embeddings = runtime.encode_images(pixels)
    assert embeddings.shape == (rows, DIM)
    assert embeddings.dtype == np.float32
    wanted = pixels.reshape(rows, 3 * 128 * 64).sum(1, dtype=np.float32)
    np.testing.assert_array_equal(embeddings, np.repeat(wanted[:, None], DIM, 1))
    sizes = [len(request["pixels"]) for request in server[0].requests]
    assert sizes == [4] * (rows // 4) + [rows % 4] * (rows % 4 > 0)


def test_threads_share_a_runtime(runtime):
    with ThreadPoolExecutor(8) as pool:
        result = list(pool.map(lambda n: runtime.encode_texts(*caption(1, n))[0, 0], range(2, 60)))
    assert result == [sum(range(n)) + n - 1 for n in range(2, 60)]


def test_a_caption_beyond_the_context_is_refused(runtime):
    with pytest.raises(QueryError, match="at most 77 tokens, got 78"):
        runtime.encode_texts(*caption(1, 78))


@pytest.mark.parametrize("context_length", [3, 16, 20, 32, 33, 77, 256])
def test_padded_lengths_are_at_most_the_context(context_length):
    lengths = padded_lengths(context_length)
    assert lengths[-1] == context_length
    assert list(lengths) == sorted(set(lengths))


@pytest.mark.parametrize("model", ["people_text", "people_image"])
@pytest.mark.parametrize(("theirs", "said"), [("f" * 64, "plan f{12},"), ("", "no plan that it")])
def test_embeddings_of_another_plan_are_refused(server, tiny_plan, model, theirs, said):
    stand_in, address = server
    ours = stand_in.fingerprints[model]
    stand_in.fingerprints[model] = theirs
    with pytest.raises(PlanError, match=rf"{model} was written from {said}.* is plan {ours[:12]};"):
        TritonRuntime(Plan(tiny_plan), address)


def test_models_that_are_not_ready_are_refused(server, tiny_plan):
    stand_in, address = server
    with pytest.raises(PlanError, match="shop_text is not there or not ready"):
        TritonRuntime(Plan(tiny_plan), address.replace("people", "shop"))
    stand_in.ready = False
    with pytest.raises(PlanError, match="people_text is not there or not ready"):
        TritonRuntime(Plan(tiny_plan), address)


def test_a_model_without_batches_is_refused(server, tiny_plan):
    server[0].max_batch = 0
    with pytest.raises(PlanError, match="max_batch_size 0, expected 1 or more"):
        TritonRuntime(Plan(tiny_plan), server[1])


def set_name(answer):
    answer.outputs[0].name = "logits"


def set_type(answer):
    answer.outputs[0].datatype = "FP16"


def set_rows(answer):
    answer.outputs[0].shape[0] += 1


def set_width(answer):
    answer.outputs[0].shape[1] = 64


def cut_content(answer):
    answer.raw_output_contents[0] = answer.raw_output_contents[0][:-1]


def drop_content(answer):
    del answer.raw_output_contents[:]


def drop_all(answer):
    answer.Clear()


@pytest.mark.parametrize(
    "spoil", [set_name, set_type, set_rows, set_width, cut_content, drop_content, drop_all]
)
def test_invalid_answers_are_refused(runtime, server, spoil):
    server[0].spoil = spoil
    with pytest.raises(PlanError, match=r"people_text gives .*expected \[\('embeddings', 'FP32'"):
        runtime.encode_texts(*caption())


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "INVALID_ARGUMENT",
            "INVALID_ARGUMENT: the words of the server.*finegrain export RUN triton",
        ),
        ("INTERNAL", "INTERNAL: the words of the server"),
        ("UNAVAILABLE", r"takes no more requests \(the words of the server\)"),
    ],
)
def test_errors_of_the_server_are_passed_on(runtime, server, code, said):
    server[0].refuse = grpc.StatusCode[code], "the words of the server"
    with pytest.raises(PlanError, match=f"people_text: .*{said}"):
        runtime.encode_texts(*caption())
    server[0].refuse = None
    assert runtime.encode_texts(*caption()).shape == (1, DIM)


def test_a_late_answer_is_a_timeout(server, tiny_plan):
    stand_in, address = server
    runtime = TritonRuntime(Plan(tiny_plan), address, timeout=2)
    stand_in.hold.clear()
    with pytest.raises(PlanError, match="people_text: no answer within 2 s"):
        runtime.encode_texts(*caption())
    runtime.close()


def test_a_missing_server_is_an_error(tiny_plan):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and no process listens
        port = taken.getsockname()[1]
        with pytest.raises(PlanError, match=rf"127.0.0.1:{port}: people_text: .*cannot be reached"):
            TritonRuntime(Plan(tiny_plan), f"triton://127.0.0.1:{port}/people")


def test_a_closed_runtime_is_an_error(runtime):
    runtime.close()
    runtime.close()
    with pytest.raises(PlanError, match=r"closed channel.*Open the plan again"):
        runtime.encode_texts(*caption())


@pytest.mark.parametrize("module", ["grpc", "tritonclient"])
def test_a_missing_extra_is_named(tiny_plan, monkeypatch, module):
    class NotInstalled:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == module:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for loaded in (module, "tritonclient.grpc"):
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=rf'{module} is needed.*"finegrain\[triton\]"'):
        TritonRuntime(Plan(tiny_plan), "triton://127.0.0.1/people")


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("triton://gpu-1:9001/people", "gpu-1:9001"),
        ("triton://gpu-1/people", "gpu-1:8001"),
        ("triton://gpu-1.shop.example/people/", "gpu-1.shop.example:8001"),
        ("triton://[::1]:9001/people", "[::1]:9001"),
    ],
)
def test_addresses_are_parsed(address, server):
    assert TritonAddress.parse(address) == TritonAddress(server=server, name="people")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "people",
        "triton:people",
        "triton://",
        "triton://host",
        "triton://host:8001/",
        "triton://:8001/people",
        "triton://host:port/people",
        "triton://host:99999/people",
        "triton://host:8001/a/b",
        "triton://host:8001/..",
        "triton://host:8001/pe ople",
        "triton://host:8001/people?timeout=1",
        "triton://host:8001/people#1",
        "triton://name:secret@host:8001/people",
        "triton://[::1/people",
        "http://host:8000/people",
    ],
)
def test_invalid_addresses_are_refused(address):
    with pytest.raises(
        PlanError, match=r"expected the address .*such as triton://host:8001/people"
    ):
        TritonAddress.parse(address)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_an_error(text):
    try:
        result = TritonAddress.parse(f"triton://{text}")
    except PlanError:
        return
    assert result.name.strip("/") in text
    assert "/" not in result.server


@pytest.mark.parametrize("runtime", ["triton", "tritons://host/people", "TensorRT"])
def test_unknown_runtimes_are_refused(tiny_plan, runtime):
    with pytest.raises(PlanError, match="or triton://HOST:PORT/NAME, got"):
        Encoder.from_plan(Plan(tiny_plan), runtime=runtime)
