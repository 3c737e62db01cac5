"""Downloads from a hub on the loopback address, and their failures."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from fixtures.loopback_hub import COMMIT, LARGE, Repository

from finegrain.errors import LicenceError, WeightsError
from finegrain.zoo import fetching
from finegrain.zoo.catalog import KnownModel
from finegrain.zoo.fetching import fetch
from finegrain.zoo.hub import stated_licence

WEIGHTS = bytes(range(256)) * (4 * LARGE // 256)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "code.py": b"raise SystemExit"}
NAME = "somebody/clip"


@pytest.fixture
def repository(hub):
    hub.repositories[NAME] = Repository(dict(FILES))
    return hub.repositories[NAME]


@pytest.fixture
def model(monkeypatch):
    """Publishes a known model; call it with the fields that differ."""

    def publish(**fields):
        values = {
            "name": "tiny",
            "about": "",
            "repository": NAME,
            "embed_dim": 1,
            "parameters": 1.0,
            "image_gflops": 1.0,
            "licence": "MIT",
        }
        monkeypatch.setattr("finegrain.zoo.catalog.KNOWN", (KnownModel(**values | fields),))

    return publish


def fetched(name=NAME, **options):
    return fetch(name, progress=False, **options)


def cached(tmp_path):
    """Files in the download cache, with links and unfinished files."""
    names = (path.name for path in (tmp_path / "hub_cache").rglob("*") if not path.is_dir())
    return [name for name in names if not name.endswith((".lock", "TAG", "main"))]


def test_only_the_files_of_the_model_are_downloaded(hub, repository):
    got = fetched()
    assert sorted(path.name for path in got.folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert (got.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent("code.py") == []
    assert got.digests == {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
    assert got.source == {
        "name": "clip",
        "repository": NAME,
        "revision": COMMIT,
        "licence": "mit",
    }


def test_a_second_pull_downloads_nothing(hub, repository):
    fetched()
    hub.requests.clear()
    fetched()
    assert hub.sent("model.safetensors") == []


def test_an_interrupted_download_is_resumed(hub, repository, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    repository.cut_after["model.safetensors"] = 5000
    assert (fetched().folder / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent("model.safetensors") == [None, "bytes=4096-"]


def test_finished_files_are_kept_if_a_later_one_is_interrupted(
    hub, repository, monkeypatch, tmp_path
):
    from huggingface_hub import file_download

    plain = file_download.http_get

    def interrupted(url, file, **options):
        if url.endswith("model.safetensors"):
            file.write(b"the first bytes")
            raise KeyboardInterrupt
        plain(url, file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetched()
    assert not [name for name in cached(tmp_path) if "incomplete" in name]
    hub.requests.clear()
    assert (fetched().folder / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent("config.json") == []


def test_a_file_that_differs_from_its_digest_is_refused_and_removed(hub, repository, tmp_path):
    repository.digests["model.safetensors"] = 64 * "0"
    with pytest.raises(WeightsError, match=r"not the file whose digest the hub states.*removed"):
        fetched()
    assert 64 * "0" not in cached(tmp_path)
    # The cache does not keep the wrong file: with the right digest it is downloaded again.
    repository.digests.clear()
    assert fetched().digests == {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}


def test_a_small_file_is_compared_with_the_digest_of_git(hub, repository):
    repository.digests["config.json"] = 40 * "0"
    with pytest.raises(WeightsError, match=r"config\.json of somebody/clip is not the file"):
        fetched()
    assert hub.sent("model.safetensors") == []


def test_a_damaged_cache_is_detected(hub, repository, tmp_path):
    got = fetched()
    (got.folder / "model.safetensors").resolve().write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="removed from the cache"):
        fetched()
    assert (fetched().folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_path_outside_the_folder_is_not_downloaded(hub, repository, tmp_path):
    repository.files |= {"../../config.json": b"{}", "a\\..\\config.json": b"{}"}
    got = fetched()
    assert got.choice.companions == ("README.md", "config.json")


def test_the_cache_is_used_without_a_network(hub, repository, monkeypatch):
    online = fetched()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert fetched() == online


def test_offline_mode_sends_no_request(hub, repository, monkeypatch):
    online = fetched()
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    offline = fetched()
    assert offline == online
    assert hub.requests == []


def test_no_network_and_an_empty_cache_are_an_error(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"cannot be reached.*HF_ENDPOINT.*--from"):
        fetched()


def test_offline_mode_with_an_empty_cache_is_an_error(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        fetched()


def test_a_gated_repository_is_an_error_with_advice(hub, repository):
    repository.gated = True
    with pytest.raises(WeightsError, match=rf"is gated.*{hub.endpoint}/{NAME}.*HF_TOKEN"):
        fetched()


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "HF_TOKEN"), (429, "too many requests"), (500, "try again later")],
)
def test_refusals_of_the_hub_are_errors(hub, repository, monkeypatch, status, advice):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    repository.status = status
    with pytest.raises(WeightsError, match=f"with status {status}: .*{advice}"):
        fetched()


def test_a_missing_repository_is_an_error(hub):
    with pytest.raises(WeightsError, match=r"no repository nobody/nothing at .*, or it is private"):
        fetched("nobody/nothing")
    with pytest.raises(WeightsError, match=r"Did you mean 'patrickjohncyh/fashion-clip'\?"):
        fetched("patrickjohncyh/fashionclip")


def test_a_missing_revision_is_an_error(hub, repository):
    with pytest.raises(WeightsError, match="has no revision 'v9'"):
        fetched(f"{NAME}@v9")
    with pytest.raises(WeightsError, match="has no revision 'v9'"):
        fetched(revision="v9")


@pytest.mark.parametrize(
    ("name", "revision"),
    [(NAME, "v1"), (f"{NAME}@v1", None), (f"{NAME}@v1", "v1"), ("tiny", "v1"), ("tiny@v1", None)],
)
def test_a_tag_is_recorded_as_its_commit(hub, repository, model, name, revision):
    repository.tags.add("v1")
    model(revision="the revision of the table")
    assert fetched(name, revision=revision).source["revision"] == COMMIT
    assert f"/api/models/{NAME}/revision/v1" in [path for _, path, _ in hub.requests]


def test_two_revisions_and_one_of_files_are_refused(hub, repository, tmp_path):
    with pytest.raises(WeightsError, match="'v1' in the name and 'v2' by --revision"):
        fetched(f"{NAME}@v1", revision="v2")
    for name in (NAME, None):
        with pytest.raises(WeightsError, match="a revision only with a repository"):
            fetched(name, revision="v1", source=tmp_path)


@pytest.mark.parametrize("name", ["a/b/c", "a/ b", "/b", "a/"])
def test_an_invalid_repository_name_is_refused(hub, name):
    with pytest.raises(WeightsError, match=r"expected owner/name|no repository"):
        fetched(name)


def test_a_server_that_is_not_a_hub_is_an_error(hub, monkeypatch):
    hub.repositories[NAME] = Repository({})
    monkeypatch.setattr(
        "fixtures.loopback_hub._Handler._list", lambda self, *_: self._send(200, b"hi")
    )
    with pytest.raises(WeightsError, match=r"does not answer as a model hub does.*HF_ENDPOINT"):
        fetched()


def test_too_little_disk_space_is_detected_before_the_download(hub, repository, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(WeightsError, match=r"disk of the cache .* is full: .* needed.*HF_HOME"):
        fetched()
    assert hub.sent("config.json") == []


def test_a_disk_that_becomes_full_is_an_error(hub, repository, monkeypatch, tmp_path):
    def write(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", write)
    with pytest.raises(WeightsError, match=r"is full: No space left on device\. Free space there"):
        fetched()
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    ("stated", "shown"), [("cc-by-nc-4.0", "states cc-by-nc-4.0"), (None, "states no licence")]
)
def test_a_licence_must_be_accepted(hub, repository, stated, shown):
    repository.licence = stated
    with pytest.raises(LicenceError, match=rf"{shown}.*Read its terms.*--accept-licence"):
        fetched()
    assert hub.sent("config.json") == hub.sent("model.safetensors") == []
    assert fetched(accept_licence=True).source.get("licence") == stated


def test_licences_of_the_catalog_and_of_the_repository_are_checked(hub, repository, model):
    model(licence="Apple's terms")
    with pytest.raises(LicenceError, match="mit and Apple's terms"):
        fetched("tiny")
    model(licence="MIT")
    repository.licence = "other"
    with pytest.raises(LicenceError, match="other and MIT"):
        fetched("tiny")
    repository.licence = None
    assert fetched("tiny").source["licence"] == "MIT"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ({"license": "mit"}, "mit"),
        ({"license": "other", "license_name": "apple-amlr"}, "apple-amlr"),
        ({"license": "other"}, "other"),
        ({"license": ["mit", "cc-by-4.0"]}, "mit, cc-by-4.0"),
        ({}, None),
        (None, None),
    ],
)
def test_licences_are_read_from_model_cards(card, licence):
    assert stated_licence(card) == licence


def test_without_torch_onnx_towers_are_downloaded(hub, repository, model):
    towers = {"visual/model.onnx": WEIGHTS, "textual/model.onnx": WEIGHTS[::-1]}
    hub.repositories["somebody/onnx"] = Repository(towers)
    model(onnx="somebody/onnx", revision=COMMIT)
    assert fetched("tiny").source["repository"] == NAME
    got = fetched("tiny", has_torch=False)
    assert got.source["repository"] == "somebody/onnx"
    assert list(got.digests) == ["visual/model.onnx", "textual/model.onnx"]


def test_without_torch_its_weights_are_not_downloaded(hub, repository):
    with pytest.raises(WeightsError, match=r"published for PyTorch.*finegrain\[train\]"):
        fetched(has_torch=False)
    assert hub.sent("model.safetensors") == []


def test_a_known_digest_must_be_the_one_that_the_hub_states(hub, repository, model):
    model(sha256=64 * "1", file="model.safetensors", revision=COMMIT)
    with pytest.raises(WeightsError, match=f"expected {64 * '1'}. The repository has changed"):
        fetched("tiny")
    assert hub.sent("model.safetensors") == []


def test_a_local_folder_is_a_source(tmp_path, model):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    got = fetched(None, source=tmp_path)
    assert got.folder == tmp_path
    assert got.choice.weights == ("model.safetensors",)
    assert got.source == {"name": tmp_path.name, "licence": "mit"}
    assert fetched(None, source=tmp_path / "model.safetensors").digests == got.digests
    model(sha256=64 * "1")
    with pytest.raises(WeightsError, match="not the file of tiny: expected SHA-256 1111"):
        fetched("tiny", source=tmp_path)


def test_local_files_need_no_licence_but_an_unfree_one_must_be_accepted(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    assert "licence" not in fetched(None, source=tmp_path).source
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with pytest.raises(LicenceError, match=r"states cc-by-nc-4\.0"):
        fetched(None, source=tmp_path)


def test_local_paths_without_a_model_are_refused(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="neither a folder nor a file at"):
        fetched(None, source=tmp_path / "nothing")
    with pytest.raises(WeightsError, match="no files at all"):
        fetched(None, source=tmp_path)
    (tmp_path / "a.pt").touch()
    with pytest.raises(WeightsError, match="use --file only with"):
        fetched(None, source=tmp_path / "a.pt", file="a.pt")
    (tmp_path / "b.pt").touch()
    monkeypatch.setattr(fetching, "_MAX_ENTRIES", 1)
    with pytest.raises(WeightsError, match="more than 1 files"):
        fetched(None, source=tmp_path)
    with pytest.raises(WeightsError, match="expected the name of a model"):
        fetched(None)


def test_deep_folders_are_not_searched(tmp_path):
    deep = Path(tmp_path, "a", "b", "c")
    deep.mkdir(parents=True)
    (deep / "model.safetensors").touch()
    with pytest.raises(WeightsError, match="no files at all"):
        fetched(None, source=tmp_path)
