"""The cache of built engines, each for one graph, GPU, version and precision.

Engines are executable content: anyone who can write to the cache folder can run code in this
process. The folder is therefore created for its owner only, and a world-writable folder raises an
error.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from finegrain.errors import PlanError
from finegrain.plan import Plan
from finegrain.runtime.tensorrt.eviction import LOCK, evict, stated_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """Everything that an engine depends on.

    Attributes:
        graph: SHA-256 of the ONNX graph.
        backend, version: The TensorRT that built it.
        gpu, driver: GPU and driver it was built on; ``any`` for TensorRT-RTX, which compiles for
            the GPU when the engine is loaded.
        precision: Precision of the graph, for readers.
        buckets: Input shapes of each profile, as JSON.
    """

    graph: str
    backend: str
    version: str
    gpu: str
    driver: str
    precision: str
    buckets: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def default_folder() -> Path:
    """``finegrain/engines`` in the user's cache folder (XDG Base Directory Specification)."""
    cache_home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification requires that a relative path is ignored.
    base = Path(cache_home) if Path(cache_home).is_absolute() else Path.home() / ".cache"
    return base / "finegrain" / "engines"


class EngineCache:
    """Engines in a folder, each with a JSON file that states its key.

    Args:
        folder: Cache folder; by default :func:`default_folder`.
        max_bytes: Size above which the least recently used engines are removed; by default the
            environment variable ``FINEGRAIN_ENGINE_CACHE_GIB``, or 8 GiB.

    Raises:
        PlanError: The folder cannot be created or is world-writable, or the variable is invalid.
    """

    def __init__(self, folder: Path | None = None, *, max_bytes: int | None = None) -> None:
        self.max_bytes = stated_limit() if max_bytes is None else max_bytes
        self.folder = default_folder() if folder is None else folder
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PlanError(
                f"engines cannot be kept in {self.folder} ({error}); name another folder: cache=..."
            ) from error
        # Windows reports these bits as set for every folder; it uses access control lists.
        if os.name == "posix" and self.folder.stat().st_mode & stat.S_IWOTH:
            raise PlanError(
                f"anyone may write to {self.folder}, and a loaded engine runs code. "
                f"Remove the permission with: chmod o-w {self.folder}"
            )

    def get_or_build(self, key: EngineKey, build: Callable[[], bytes]) -> bytes:
        """The engine of a key; it is built if the cache has no valid one.

        If several processes need the same engine, one builds it and the others wait.
        """
        with FileLock(self.folder / f"{key.digest}{LOCK}"):
            engine = self._read(key)
            if engine is not None:
                return engine
            engine = build()
            self._write(key, engine)
        evict(self.folder, self.max_bytes)
        return engine

    def read_beside(self, name: str) -> bytes:
        """Content of a file of timings or compiled kernels; empty if there is none."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else b""

    def write_beside(self, name: str, content: bytes) -> None:
        """Write a file of timings or compiled kernels, unless the content is empty."""
        if content:
            _write_atomically(self.folder / name, content)

    def _read(self, key: EngineKey) -> bytes | None:
        about, path = self._paths(key)
        if not about.is_file() or not path.is_file():
            return None
        engine = path.read_bytes()
        if about.read_bytes() != _describe(key, engine):
            return None
        os.utime(about)  # mark as used; the least recently used entry is evicted first
        return engine

    def _write(self, key: EngineKey, engine: bytes) -> None:
        about, path = self._paths(key)
        _write_atomically(path, engine)
        # Write this last: an engine is valid once its digest exists.
        _write_atomically(about, _describe(key, engine))

    def _paths(self, key: EngineKey) -> tuple[Path, Path]:
        return self.folder / f"{key.digest}.json", self.folder / f"{key.digest}.engine"


def engine_members(key: EngineKey, tower: str, engine: bytes) -> dict[str, bytes]:
    """Members of a plan that hold an engine; ``tower`` is ``text`` or ``image``."""
    stem = f"engines/{key.backend}/{tower}"
    return {f"{stem}.engine": engine, f"{stem}.json": _describe(key, engine)}


def engine_of_plan(plan: Plan, key: EngineKey, tower: str) -> bytes | None:
    """The engine inside a plan, or ``None`` if the plan has none.

    Call it only for a trusted plan, because an engine runs code.

    Raises:
        PlanError: The engine was built for another machine, or is damaged.
    """
    stem = f"engines/{key.backend}/{tower}"
    if not {f"{stem}.engine", f"{stem}.json"} <= plan.manifest.sha256.keys():
        return None
    engine, about = plan.take(f"{stem}.engine"), _parse(plan.take(f"{stem}.json"))
    expected = asdict(key)
    if differing := [name for name in expected if about.get(name) != expected[name]]:
        built_for = ", ".join(f"{name} {about.get(name)!r:.80}" for name in differing)
        here = ", ".join(f"{name} {expected[name]!r:.80}" for name in differing)
        raise PlanError(
            f"{plan.path}: {stem}.engine was built for {built_for}; here it is {here}. "
            "Open the plan without trust_engines, and one is built from its graph."
        )
    if about.get("sha256") != hashlib.sha256(engine).hexdigest():
        raise PlanError(f"{plan.path}: {stem}.engine is damaged. Export the plan again.")
    return engine


def _describe(key: EngineKey, engine: bytes) -> bytes:
    description = {**asdict(key), "sha256": hashlib.sha256(engine).hexdigest()}
    return json.dumps(description, indent=1).encode()


def _parse(about: bytes) -> Mapping[str, Any]:
    try:
        description = json.loads(about)
    except (ValueError, RecursionError):
        return {}
    return description if isinstance(description, dict) else {}


def _write_atomically(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise PlanError(
            f"cannot write {path}: {error.strerror or error}. "
            "Make room, or name another folder for engines: cache=..."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
