"""Downloads from a model hub, by ``huggingface_hub``: its cache, tokens, mirrors and offline mode.

The hub states the commit of a repository and a digest of each file. Every file is compared with
its digest after the download; a file that differs is removed from the cache.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from finegrain.errors import WeightsError, did_you_mean, require
from finegrain.zoo.catalog import known_repositories

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SPARE_BYTES = 256 << 20
"""What should be free on the disk besides the files."""


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository.

    Attributes:
        size: Its bytes; None if unknown.
        sha256: Digest of a file in large file storage, as the hub states it.
        git_sha1: Digest of any other file, as git computes it.
    """

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one commit.

    Attributes:
        repository: ``owner/name``.
        revision: The commit.
        licence: What the model card states; None if nothing.
        files: Its files by path.
        folder: The cached snapshot, if the hub was not asked; else None.
    """

    repository: str
    revision: str
    licence: str | None
    files: Mapping[str, HubFile]
    folder: Path | None = None


def list_repository(repository: str, revision: str | None = None) -> Listing:
    """List a repository, from the cache if the hub cannot be reached.

    Raises:
        MissingExtraError: ``huggingface_hub`` is not installed.
        WeightsError: There is no such repository or revision, it is not open to the user, or the
            hub cannot be reached and the cache does not have it.
    """
    hub = require("huggingface_hub", "pull")
    with _plain_errors(repository, revision):
        try:
            info = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        except _unreachable():
            cached = _cached(repository, revision)
            if cached is None:
                raise
            return cached
        # The cache notes which commit this is, and finds it under the same name without a network.
        hub.HfApi().resolve_revision(repository, revision=revision)
    return Listing(
        repository=repository,
        revision=info.sha,
        licence=stated_licence(info.card_data),
        files={
            file.rfilename: HubFile(
                size=file.size,
                sha256=file.lfs.sha256 if file.lfs else None,
                git_sha1=None if file.lfs else file.blob_id,
            )
            for file in info.siblings or ()
            if _stays_inside(file.rfilename)
        },
    )


def download(listing: Listing, names: Iterable[str], *, progress: bool = True) -> Path:
    """Download files into the cache, and compare each with its digest.

    Finished files are not downloaded again. A connection that breaks is taken up where it broke.

    Args:
        listing: The repository.
        names: Paths of the files.
        progress: Show a progress bar for large files.

    Returns:
        The folder of the snapshot, in which the files have their paths.

    Raises:
        WeightsError: A download failed, the disk is full, or a file differs from its digest.
    """
    names = list(names)
    if listing.folder is not None:
        for name in names:
            _verify(listing.folder / name, name, listing)
        return listing.folder
    hub = require("huggingface_hub", "pull")
    _check_space(listing, names, Path(_constants().HF_HUB_CACHE))
    folder = Path()
    with _plain_errors(listing.repository, listing.revision):
        for name in names:
            stated = listing.files[name]
            path = Path(
                hub.hf_hub_download(
                    listing.repository,
                    name,
                    revision=listing.revision,
                    tqdm_class=None if progress and (stated.size or 0) > 1 << 20 else _no_bar(),
                )
            )
            _verify(path, name, listing)
            folder = path.parents[len(Path(name).parts) - 1]
    return folder


def stated_licence(card: Any) -> str | None:
    """The licence in the metadata of a model card; several are joined by a comma.

    ``other`` is replaced by the name of the licence, if the card has one.
    """
    values = dict(card.to_dict() if hasattr(card, "to_dict") else card or {})
    licence = values.get("license")
    if licence == "other":
        licence = values.get("license_name") or licence
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    return str(licence) if licence else None


def card_licence(folder: Path) -> str | None:
    """The licence that the model card in a folder states; None if nothing."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        return stated_licence(require("huggingface_hub", "pull").metadata_load(card))
    except (OSError, ValueError):
        return None


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joint_digest(digests: Iterable[str]) -> str:
    """One digest of the digests of several files; that of a single file is returned as it is."""
    first, *others = digests
    if not others:
        return first
    return hashlib.sha256("\n".join((first, *others)).encode()).hexdigest()


def _stays_inside(name: str) -> bool:
    """Whether a path of a repository cannot leave the folder of the snapshot."""
    parts = name.split("/")
    return not {"", ".", ".."} & set(parts) and "\\" not in name and ":" not in name


def _verify(path: Path, name: str, listing: Listing) -> None:
    stated = listing.files[name]
    if stated.sha256 is not None:
        matches = digest(path) == stated.sha256
    elif stated.git_sha1 is not None:
        content = path.read_bytes()
        # Git hashes a header before the content.
        header = f"blob {len(content)}\0".encode()
        actual = hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
        matches = actual == stated.git_sha1
    else:
        return
    if not matches:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise WeightsError(
            f"{name} of {listing.repository} is not the file whose digest the hub states, so "
            "it was damaged or exchanged on its way; it was removed from the cache. Run the "
            "command again; if it fails again, do not trust this hub or mirror"
        )


def _cached(repository: str, revision: str | None) -> Listing | None:
    """The snapshot of a repository in the cache, whose links name the digests of large files."""
    hub = require("huggingface_hub", "pull")
    try:
        folder = Path(hub.snapshot_download(repository, revision=revision, local_files_only=True))
    except OSError:
        return None
    files = {}
    for path in folder.rglob("*"):
        if path.is_file():
            stored = path.resolve().name
            is_digest = _SHA256.fullmatch(stored) is not None
            files[path.relative_to(folder).as_posix()] = HubFile(
                size=path.stat().st_size, sha256=stored if is_digest else None
            )
    return Listing(
        repository=repository,
        revision=folder.name,
        licence=card_licence(folder),
        files=files,
        folder=folder,
    )


def _check_space(listing: Listing, names: Iterable[str], cache: Path) -> None:
    """Fail before a long download if the disk has no room for it."""
    hub = require("huggingface_hub", "pull")
    needed = sum(
        listing.files[name].size or 0
        for name in names
        if not isinstance(
            hub.try_to_load_from_cache(listing.repository, name, revision=listing.revision), str
        )
    )
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed and free < needed + _SPARE_BYTES:
        raise _disk_full(cache, f"{needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB free")


def _disk_full(cache: Path, why: str) -> WeightsError:
    return WeightsError(
        f"the disk of the cache {cache} is full: {why}. Free space there, or set HF_HOME to a "
        "folder on another disk, and run the command again"
    )


def _constants() -> ModuleType:
    """The addresses and folders that ``huggingface_hub`` has read from the environment."""
    return require("huggingface_hub.constants", "pull")


def _unreachable() -> tuple[type[BaseException], ...]:
    """Errors that say that the hub cannot be asked."""
    errors = require("huggingface_hub.errors", "pull")
    http = require("httpx2", "pull")
    return (errors.OfflineModeIsEnabled, http.TransportError)


@contextmanager
def _plain_errors(repository: str, revision: str | None) -> Iterator[None]:
    """Turn errors of the hub into errors that say what to do."""
    errors = require("huggingface_hub.errors", "pull")
    endpoint = _constants().ENDPOINT
    try:
        yield
    except WeightsError:
        raise
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{repository} is gated: its owner gives the files only to those who accept the terms. "
            f"Sign in and accept them at {endpoint}/{repository}, then set HF_TOKEN to a token of "
            "that account, or run: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{repository} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"there is no repository {repository} at {endpoint}, or it is private. Check its name; "
            "for a private one set HF_TOKEN to a token that may read it."
            f"{did_you_mean(repository, known_repositories())}"
        ) from error
    except errors.HFValidationError as error:
        raise WeightsError(
            f"{repository!r} is not the name of a repository; expected owner/name"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise _no_connection(repository, "HF_HUB_OFFLINE is set") from error
    except errors.LocalEntryNotFoundError as error:
        raise _no_connection(repository, f"{endpoint} cannot be reached") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise WeightsError(
            f"{endpoint} refused {repository} with status {status}: {_advice(status)}"
        ) from error
    except require("httpx2", "pull").HTTPError as error:
        raise _no_connection(repository, f"{endpoint} cannot be reached ({error})") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            cache = Path(_constants().HF_HUB_CACHE)
            raise _disk_full(cache, os.strerror(error.errno or 0)) from error
        raise WeightsError(f"{repository} cannot be downloaded: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{endpoint} does not answer as a model hub does ({error!r:.200}); check HF_ENDPOINT"
        ) from error


def _no_connection(repository: str, why: str) -> WeightsError:
    return WeightsError(
        f"{repository} is not in the cache, and {why}. Check the connection and the proxy; set "
        "HF_ENDPOINT to use a mirror; or copy the files of the repository into a folder here and "
        "pull it by --from FOLDER"
    )


def _advice(status: int) -> str:
    if status in (401, 403):
        return "set HF_TOKEN to a token that may read it, or run: hf auth login"
    if status == 429:
        return "too many requests; wait some minutes, or set HF_TOKEN"
    return "try again later, or set HF_ENDPOINT to use a mirror"


def _no_bar() -> type[Any]:
    """A progress bar that is never shown."""
    from tqdm import tqdm

    class NoBar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

    return NoBar
