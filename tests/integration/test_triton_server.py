"""The real Triton server serves the written repository, in batches, with the expected embeddings.

The only server that comes as a wheel has a Python backend, without ONNX Runtime or TensorRT. Each
model is therefore replaced by one that runs the same graph in ONNX Runtime inside Triton's Python
backend. Its configuration is the written one with another platform. Nothing here runs on a GPU.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegrain.encoder import Encoder
from finegrain.errors import PlanError
from finegrain.plan import IMAGE, TEXT, TOKENIZER, Plan, write_plan
from finegrain.records import Sample
from finegrain.runtime.triton import TritonRuntime
from finegrain.search.searcher import Searcher

pytest.importorskip("grpc", reason='gRPC is absent: "finegrain[triton]"')
client = pytest.importorskip("tritonclient.grpc", reason='absent: "finegrain[triton]"')

ANSWER_SECONDS = 10
LIFETIME_SECONDS = 600
MAX_BATCH = 8
QUERIES = ("red coat", "a man with a green backpack and blue jeans", "word " * 60)
TWIN = """
import sys
from pathlib import Path

# Triton's interpreter is isolated: it looks at no environment variable.
sys.path.insert(0, {packages!r})

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        graph = Path(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )

    def execute(self, requests):
        # By DLPack, for Triton's own conversions were built before numpy 2 and misread its arrays.
        taken = [
            {tensor.name(): np.from_dlpack(tensor) for tensor in request.inputs()}
            for request in requests
        ]
        inputs = {name: np.concatenate([one[name] for one in taken]) for name in taken[0]}
        (embeddings,) = self.session.run(["embeddings"], inputs)
        ends = np.cumsum([len(next(iter(one.values()))) for one in taken])
        return [
            triton.InferenceResponse([triton.Tensor.from_dlpack("embeddings", part)])
            for part in np.split(embeddings, ends[:-1])
        ]
"""


@dataclass(frozen=True)
class Server:
    """A running server and its log."""

    target: str
    stub: Any
    log: Path

    @property
    def address(self) -> str:
        return f"triton://{self.target}/people"


def package() -> Path:
    """Folder of the server in the wheel; the Python code of the wheel is not imported."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the Triton binary is absent: pip install --no-deps nvidia-pytriton")
    return Path(spec.submodule_search_locations[0])


def backends(wheel: Path, folder: Path) -> Path:
    """A folder with the Python backend and the stub for this version of Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file() or not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        pytest.skip(f"Triton's Python backend has no stub for a Python {version} like this one")
    shutil.copytree(wheel / "tritonserver/backends/python", folder / "python")
    shutil.copy(stub, folder / "python")
    return folder


def with_python_backend(repository: Path, packages: Path) -> None:
    twin = TWIN.replace("{packages!r}", repr(str(packages)))
    for model in repository.iterdir():
        config = model / "config.pbtxt"
        ours = config.read_text()
        assert ours.count('platform: "onnxruntime_onnx"') == 1
        config.write_text(ours.replace('platform: "onnxruntime_onnx"', 'backend: "python"'))
        (model / "1" / "model.py").write_text(twin)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def server(tiny_plan, tmp_path_factory, wait_until_ready) -> Iterator[Server]:
    from finegrain.exporters.triton import TritonServing, write_triton_repository

    wheel, folder = package(), tmp_path_factory.mktemp("triton")
    # A delay in which concurrent requests arrive even on a busy machine.
    serving = TritonServing(max_batch=MAX_BATCH, max_delay_us=20_000)
    write_triton_repository(Plan(tiny_plan), folder / "repository", name="people", serving=serving)
    with_python_backend(folder / "repository", packages=wheel.parent)
    libraries = [wheel.parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    target, log = f"127.0.0.1:{free_port()}", folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                # Ends the server even if this process is killed.
                *("timeout", "--kill-after=5", str(LIFETIME_SECONDS)),
                wheel / "tritonserver/bin/tritonserver",
                f"--model-repository={folder / 'repository'}",
                f"--backend-directory={backends(wheel, folder / 'backends')}",
                # The backend must not complete the configuration.
                "--disable-auto-complete-config",
                "--allow-http=false",
                "--allow-metrics=false",
                "--grpc-address=127.0.0.1",
                f"--grpc-port={target.rpartition(':')[2]}",
                "--exit-timeout-secs=5",
            ],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
                "OMP_NUM_THREADS": "1",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            with client.grpc.insecure_channel(target) as channel:
                stub = client.service_pb2_grpc.GRPCInferenceServiceStub(channel)
                wait_until_ready(process, partial(is_ready, stub), log)
                yield Server(target, stub, log)
        finally:
            process.terminate()
            process.wait()


def is_ready(stub: Any) -> bool:
    try:
        request = client.service_pb2.ServerReadyRequest()
        return bool(stub.ServerReady(request, timeout=ANSWER_SECONDS).ready)
    except client.grpc.RpcError:
        return False


@pytest.fixture
def remote(server, tiny_plan) -> Iterator[Encoder]:
    encoder = Encoder.from_plan(Plan(tiny_plan), runtime=server.address)
    yield encoder
    encoder.runtime.close()


def test_the_parity_gate_holds_over_the_wire(remote, tiny_plan, crops):
    from finegrain.exporters import ExportProfile
    from finegrain.exporters.parity import compare

    samples = [
        Sample(
            image=path,
            captions=tuple(f"person {n} in coat {pid}" + " and a hat" * n for n in range(18)),
            pid=pid,
        )
        for pid, path in enumerate(sorted(crops.iterdir()))
    ]
    profile = ExportProfile(name="triton")
    report = compare(Encoder.from_plan(Plan(tiny_plan), threads=1), remote, samples, profile)
    assert report.failures(profile) == []
    assert min(report.text_cosine, report.image_cosine) > 0.99999


def test_a_searcher_gives_the_same_ten_matches(server, plan, crops):
    with Searcher(plan, runtime=server.address) as far:
        far.add(crops, progress=False)
        wanted = [far.query(text, k=10) for text in QUERIES]
    with Searcher(plan, threads=1) as near:
        for text, matches in zip(QUERIES, wanted, strict=True):
            got = near.query(text, k=10)
            assert len(got) == 10
            assert [m.image for m in got] == [m.image for m in matches]
            np.testing.assert_allclose(
                [m.score for m in got], [m.score for m in matches], atol=1e-4
            )


def test_requests_of_several_threads_share_batches(server, remote):
    def counts() -> tuple[int, int]:
        request = client.service_pb2.ModelStatisticsRequest(name="people_text")
        (stats,) = server.stub.ModelStatistics(request).model_stats
        return stats.inference_count, stats.execution_count

    captions = [f"person in coat {n}" + " and hat" * (n % 3) for n in range(64)]
    alone = np.concatenate([remote.encode_texts([caption]) for caption in captions[:4]])
    before = counts()
    with ThreadPoolExecutor(8) as pool:
        together = np.concatenate(list(pool.map(lambda one: remote.encode_texts([one]), captions)))
    inferences, executions = np.subtract(counts(), before)
    # The server may count one of the first four requests only now.
    assert 64 <= inferences <= 68
    assert executions < inferences
    np.testing.assert_allclose(together[:4], alone, atol=1e-5)


def test_the_server_uses_the_written_configuration(server):
    request = client.service_pb2.ModelConfigRequest(name="people_text")
    config = server.stub.ModelConfig(request).config
    assert config.max_batch_size == MAX_BATCH
    assert config.dynamic_batching.max_queue_delay_microseconds == 20_000
    assert [list(i.dims) for i in config.input] == [[-1], [1]]
    assert [w.name for w in config.model_warmup] == [f"ids [{n}] eot [1]" for n in (16, 32, 77)]


def test_another_plan_is_refused(server, tiny_plan, tmp_path):
    held = Plan(tiny_plan)
    other = tmp_path / "other.plan"
    write_plan(
        other,
        replace(held.manifest, fit="pad"),
        {member: held.take(member) for member in (TEXT, IMAGE, TOKENIZER)},
    )
    ours, theirs = Plan(other).manifest.fingerprint, held.manifest.fingerprint
    assert ours != theirs
    with pytest.raises(PlanError, match=f"from plan {theirs[:12]}, and .*is plan {ours[:12]};"):
        TritonRuntime(Plan(other), server.address)


def test_an_unknown_model_name_is_refused(server, tiny_plan):
    with pytest.raises(PlanError, match=r"shop_text(: NOT_FOUND| is not there or not ready)"):
        TritonRuntime(Plan(tiny_plan), f"triton://{server.target}/shop")


def test_pictures_of_another_size_are_refused(remote):
    with pytest.raises(PlanError, match=r"people_image: INVALID_ARGUMENT: .*shape"):
        remote.runtime.encode_images(np.zeros((1, 3, 8, 8), np.uint8))
