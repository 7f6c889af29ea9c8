"""Files of the Hugging Face hub, in the cache of this machine.

huggingface_hub downloads a file once for all processes of a machine, continues downloads that were cut off, and reads
the usual variables: HF_HOME (place of the cache), HF_ENDPOINT (a mirror), HF_TOKEN (gated repositories),
HF_HUB_OFFLINE=1 (the cache alone), HTTPS_PROXY. This module adds the check of SHA-256 sums, and errors with a remedy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fourds_dist.io.error_text import one_line
from fourds_dist.io.extras import fix

HUB = "hf-hub:"
SCHEME = "hf://"
"""Starts of the name of a repository: hf-hub:owner/name or hf://owner/name, or with @revision."""

_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?(@.+)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_repository(text: str) -> bool:
    """Return whether a text names a repository of the hub."""
    return text.startswith((HUB, SCHEME))


def repository_of(text: str) -> str:
    """Return the owner/name or owner/name@revision of the name of a repository.

    >>> repository_of("hf://owner/name@v1") == repository_of("hf-hub:owner/name@v1") == "owner/name@v1"
    True
    """
    return text.removeprefix(HUB).removeprefix(SCHEME).rstrip("/")


class _WrongSumError(Exception):
    """A file whose SHA-256 sum is not the hub's."""


def fetch(
    repository: str,
    files: Sequence[str],
    *,
    where: str,
    instead: str,
    with_config: bool = True,
) -> Path:
    """Return the path of the first of some files that a repository has, downloaded if the cache lacks it.

    Args:
        repository: owner/name, or owner/name@revision.
        files: names of files, best first.
        where: start of error messages: the key of the configuration and its value.
        instead: setting for a folder that was filled on another machine; `{folder}` stands for the folder.
        with_config: whether the folder needs config.json too.

    Raises:
        ValueError: no such repository, revision or file, no access, no network, a download that is cut off or has
            another checksum.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"{where}: {repository!r} is no repository of the hub; give {HUB}owner/name")
    refusal = partial(_refusal, repository, where=where, instead=instead, with_config=with_config)
    try:
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HTTPError,  # pyright: ignore[reportPrivateImportUsage]
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise ValueError(f"{where} needs huggingface_hub ({error}): {fix('hub')}") from None
    absent: Exception | None = None
    for file in files:
        try:
            # After a failure the hub is not asked again, as huggingface_hub tries for half a minute.
            return _fetch_one(repository, file, where, from_cache=absent is not None)
        except LocalEntryNotFoundError as error:  # offline, or no answer; the next file may be in the cache
            absent = absent or error
        except EntryNotFoundError:
            continue
        except _WrongSumError as error:
            raise ValueError(str(error)) from None
        except (OSError, ValueError, HTTPError) as error:
            raise ValueError(refusal(file, error=error)) from None
    if absent is not None:
        raise ValueError(refusal(files[0], error=absent)) from None
    raise ValueError(
        f"{where}: the repository {repository} has none of the files {', '.join(files)}; give another one"
    )


def _fetch_one(repository: str, file: str, where: str, *, from_cache: bool) -> Path:
    """Download a file into the cache, and compare its sum with the hub's; a wrong file is fetched once more."""
    from huggingface_hub import hf_hub_download

    name, _, revision = repository.partition("@")
    for is_second in (False, True):
        path = hf_hub_download(
            name,
            file,
            revision=revision or None,
            force_download=is_second,
            local_files_only=from_cache and not is_second,
        )
        stored = Path(path).resolve()
        # The cache names a large file by its SHA-256 sum on the hub, a small one by its sum in git.
        if not _SHA256.fullmatch(stored.name) or _sha256(stored) == stored.name:
            return Path(path)
        stored.unlink()
    raise _WrongSumError(
        f"{where}: {file} of {repository} arrives with another SHA-256 sum than the hub names, also the second time; "
        "a proxy or mirror between changes it: set HF_ENDPOINT to the hub or another mirror, and repeat the command"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refusal(
    repository: str, file: str, *, where: str, instead: str, with_config: bool, error: Exception
) -> str:
    from huggingface_hub import errors

    name, _, revision = repository.partition("@")
    cause = first_cause(error)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{where}: the repository {name} is gated; accept its conditions at {page_of(name)} and set HF_TOKEN to a "
            "token of that account (https://huggingface.co/settings/tokens)"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where}: the repository {name} has no revision {revision!r}; see {page_of(name)}/tree/main"
    if isinstance(error, errors.RepositoryNotFoundError) or status_of(cause) in (401, 403):
        return (
            f"{where}: the hub has no repository {name}, or it is private; check the name at {page_of(name)}, or set "
            "HF_TOKEN to a token that may read it"
        )
    folder = name.rpartition("/")[2]
    # config.json is the first file of a repository: which weights belong to it is not known yet.
    files = "" if file == "config.json" else f" {file} config.json" if with_config else f" {file}"
    return (
        f"{where}: {file} of {name} is not in the cache {_cache()} and cannot be downloaded from {endpoint()} "
        f"({reason_of(cause)}). Repeat the command to continue the download, or run `hf download {name}{files}"
        f"{f' --revision {revision}' if revision else ''} --local-dir {folder}` on a machine with a "
        f"network, copy the folder here and set {instead.format(folder=folder)}"
    )


def first_cause(error: BaseException) -> BaseException:
    """Return the error that led to all others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def reason_of(error: BaseException) -> str:
    """Return in one line why the hub cannot be reached."""
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else one_line(error)


def status_of(error: Any) -> int | None:
    """Return the status of the hub's answer; None for other errors."""
    return getattr(getattr(error, "response", None), "status_code", None)


def endpoint() -> str:
    """Return the URL of the hub."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def page_of(name: str) -> str:
    """Return the URL of a repository's page."""
    return f"{endpoint()}/{name}"


def _cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
