"""Paths and URLs through fsspec: atomic writes of small files, and storage errors with remedies.

A URL has a protocol of fsspec (s3://, gs://, abfs://, memory://, ...). fsspec and its drivers find credentials and
endpoints: environment, profile, instance role. This module neither stores nor prints credentials.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fourds_dist.io import extras
from fourds_dist.io.error_text import error_line, one_line

_OBJECT_STORES = {
    "s3": ("s3", "AWS_ACCESS_KEY_ID or AWS_PROFILE"),
    "s3a": ("s3", "AWS_ACCESS_KEY_ID or AWS_PROFILE"),
    "gs": ("gcs", "GOOGLE_APPLICATION_CREDENTIALS"),
    "gcs": ("gcs", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": ("azure", "AZURE_STORAGE_ACCOUNT_NAME and its key, or AZURE_STORAGE_CONNECTION_STRING"),
    "abfs": ("azure", "AZURE_STORAGE_ACCOUNT_NAME and its key, or AZURE_STORAGE_CONNECTION_STRING"),
    "abfss": ("azure", "AZURE_STORAGE_ACCOUNT_NAME and its key, or AZURE_STORAGE_CONNECTION_STRING"),
}
"""Protocol -> (extra that installs its driver, environment variables that the driver reads first)."""

_ANONYMOUS = {"s3": "FSSPEC_S3_ANON=true", "gcs": "FSSPEC_GS_TOKEN=anon", "azure": "FSSPEC_ABFS_ANON=true"}
"""Extra -> environment variable with which its driver reads public data without credentials."""

_DRIVERS = ("botocore", "aiobotocore", "s3fs", "google", "gcsfs", "azure", "adlfs", "aiohttp")
"""Packages whose errors are errors of a store."""


def is_url(path: str) -> bool:
    """Return whether a path is a URL (s3://..., simplecache::s3://...)."""
    return "://" in path or "::" in path


def plain(url: str) -> str:
    """Return a path or URL without trailing slashes; a file:// URL as a path."""
    if url.startswith(("file:", "local:")) and "::" not in url:
        return str(LocalFileSystem._strip_protocol(url))
    shortened = url.rstrip("/")
    if shortened.endswith(":") and is_url(url):  # memory://
        return f"{shortened}//"
    return shortened or url[:1]


def join(folder: str, name: str) -> str:
    """Return the path or URL of an entry of a folder."""
    folder = plain(folder)
    return folder + name if folder.endswith("/") else f"{folder}/{name}"


def parent(url: str) -> str:
    """Return the path or URL of the folder that holds a file or folder."""
    url = plain(url)
    folder, slash, _ = url.rpartition("/")
    if is_url(url) and folder.endswith(":/"):
        return f"{folder}/"
    return folder or slash or "."


def beside(file: str, other: str) -> str:
    """Return the path or URL `other` that a file refers to; a relative one is relative to the folder of the file."""
    if is_url(other) or posixpath.isabs(other):
        return plain(other)
    protocol, sign, path = join(parent(file), other).rpartition("://")
    return f"{protocol}{sign}{posixpath.normpath(path)}"


def read_text(url: str) -> str:
    """Return the text of a small file at a path or URL.

    Raises:
        ValueError: no such file, not text in UTF-8, or the store refuses access.
    """
    fs, path = locate(url)
    with translate_storage_errors(url):
        try:
            data = fs.cat_file(path)
        except FileNotFoundError:
            raise ValueError(f"{url} cannot be read: no such file") from None
        except OSError as error:
            raise ValueError(f"{url} cannot be read: {error.strerror or one_line(error)}") from None
    assert isinstance(data, bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{url} cannot be read: it is not text in UTF-8") from None


def locate(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a path or URL, and the path in it.

    Raises:
        ValueError: the driver of the URL is not installed, or its protocol is unknown.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra, _ = _OBJECT_STORES.get(_protocol(url), ("", ""))
        fix = extras.fix(extra) if extra else f"install it ({error})"
        raise ValueError(f"{url}: the driver for {_protocol(url)}:// is not installed; {fix}") from None
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from None


def is_local(fs: AbstractFileSystem) -> bool:
    """Return whether a file system is this machine's file system."""
    return "file" in fs.protocol if isinstance(fs.protocol, tuple) else fs.protocol == "file"


def may_read(path: str | Path) -> bool:
    """Return whether this user may read a local file; True if there is no such file."""
    effective = os.access in os.supports_effective_ids
    return os.access(path, os.R_OK, effective_ids=effective) or not Path(path).exists()


def is_driver_error(error: BaseException) -> bool:
    """Return whether a driver of a store raised the error."""
    return type(error).__module__.partition(".")[0] in _DRIVERS


@contextmanager
def translate_storage_errors(url: str) -> Iterator[None]:
    """Translate errors of stores and missing rights inside the block into a ValueError with a remedy.

    FileNotFoundError and errors of disks pass unchanged.
    """
    try:
        yield
    except PermissionError as error:
        raise ValueError(f"{url}: access denied ({one_line(error)}); {_where_credentials(url)}") from None
    except Exception as error:
        if not is_driver_error(error):
            raise
        if "credential" in (type(error).__name__ + str(error)).lower():
            raise ValueError(f"{url}: no credentials were found; {_where_credentials(url)}") from None
        raise ValueError(
            f"{url} cannot be reached ({error_line(error, 200)}); check the address, the network"
            f"{_where_endpoint(url)}"
        ) from None


ANOTHER = "give another path or URL"
"""What to do where nothing can be written, unless a caller knows better."""


def check_writable(folder: str, *, fix: str = ANOTHER) -> None:
    """Refuse a folder that cannot be written, before long work; the folder stays unchanged.

    Args:
        fix: what to do instead, for the message.

    Raises:
        ValueError: the folder cannot be written, or cannot be made in its nearest existing parent.
    """
    fs, path = locate(folder)
    refuse_http(folder, fix=fix)
    try:
        if is_local(fs):
            existing = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
            with tempfile.TemporaryFile(dir=existing):
                return
        with translate_storage_errors(folder):
            if _protocol(folder) not in _OBJECT_STORES:  # object stores need no folders
                while path.strip("/") and not fs.exists(path):
                    path = fs._parent(path)
                if fs.isfile(path):
                    raise NotADirectoryError(f"{path} is a file")
            probe = f"{path.rstrip('/')}/.fourds-{uuid.uuid4().hex[:8]}"
            fs.pipe_file(probe, b"fourds")
            fs.rm_file(probe)
            fs.invalidate_cache()
    except NotImplementedError:
        raise ValueError(f"{folder}: nothing can be written there; {fix}") from None
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({one_line(error)}); {fix}") from None


def refuse_http(url: str, *, fix: str = ANOTHER) -> None:
    """Refuse an HTTP URL as a destination, before any request.

    Args:
        fix: what to do instead, for the message.

    Raises:
        ValueError: `url` is an HTTP URL.
    """
    if _protocol(url) in ("http", "https"):
        raise ValueError(f"{url}: nothing can be written over HTTP; {fix}")


def check_file(url: str) -> None:
    """Refuse a path or URL at which no file can be written, before long work.

    Raises:
        ValueError: `url` is a folder, or its folder cannot be written.
    """
    fs, path = locate(url)
    with translate_storage_errors(url):
        is_folder = url.endswith("/") or (is_local(fs) and Path(path).is_dir())
    if is_folder:
        raise ValueError(f"{url} is a folder; give a file in it")
    check_writable(parent(url))


def write_bytes(url: str, data: bytes) -> None:
    """Write a small file to a path or URL atomically."""
    fs, path = fsspec.core.url_to_fs(url)
    if is_local(fs):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        partial = Path(path + ".partial")
        partial.write_bytes(data)
        partial.replace(path)
    elif _protocol(url) in _OBJECT_STORES:
        fs.pipe_file(path, data)  # object stores write atomically and need no folders
    else:
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(path + ".partial", data)
        _rename(fs, path + ".partial", path)


def put_file(url: str, local: Path) -> None:
    """Move a local file to a path or URL atomically.

    Raises:
        OSError: writing failed, or the store reports another size than that of `local`.
    """
    fs, path = locate(url)
    if is_local(fs):
        local.replace(path)
        return
    num_bytes = local.stat().st_size
    if _protocol(url) in _OBJECT_STORES:
        fs.put_file(str(local), path)
    else:
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.put_file(str(local), path + ".partial")
        _rename(fs, path + ".partial", path)
    fs.invalidate_cache()
    if (stored := fs.info(path)["size"]) != num_bytes:
        raise OSError(f"{url} has {stored} bytes after {num_bytes} were sent; try again")
    local.unlink()


def _rename(fs: AbstractFileSystem, old: str, new: str) -> None:
    if type(fs).mv is AbstractFileSystem.mv:  # it reads [ and * in names as patterns
        fs.cp_file(old, new)
        fs.rm_file(old)
    else:
        fs.mv(old, new)


def _where_credentials(url: str) -> str:
    protocol = _protocol(url)
    if protocol not in _OBJECT_STORES:
        return "check its owner and permissions"
    extra, first = _OBJECT_STORES[protocol]
    profile = os.environ.get("AWS_PROFILE", "default")
    files = f", then the profile {profile!r} of ~/.aws" if protocol.startswith("s3") else ""
    return (
        f"the driver reads the environment first ({first}){files}, then the instance's role; public data is read with "
        f"{_ANONYMOUS[extra]}"
    )


def _where_endpoint(url: str) -> str:
    """Return the part of a remedy that names the setting for a custom endpoint."""
    extra, _ = _OBJECT_STORES.get(_protocol(url), ("", ""))
    if extra == "azure":  # adlfs has no setting for an endpoint alone
        return " and, for a store of your own, AZURE_STORAGE_CONNECTION_STRING"
    return f" and the endpoint, e.g. FSSPEC_{_protocol(url).upper()}_ENDPOINT_URL" if extra else ""


def _protocol(url: str) -> str:
    return url.partition("://")[0].rpartition("::")[2] if "://" in url else "file"
