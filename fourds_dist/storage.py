"""Paths and URLs through fsspec: small files written whole or not at all, and errors that say what to do.

A path is a local one or a URL that fsspec knows (s3://, gs://, abfs://, memory://, ...). Credentials and endpoints are
fsspec's and the driver's own: environment, profile, instance role. Nothing here keeps or prints them.
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

from fourds_dist import extras

_OBJECT_STORES = {
    "s3": ("s3", "AWS_ACCESS_KEY_ID or AWS_PROFILE"),
    "s3a": ("s3", "AWS_ACCESS_KEY_ID or AWS_PROFILE"),
    "gs": ("gcs", "GOOGLE_APPLICATION_CREDENTIALS"),
    "gcs": ("gcs", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": ("azure", "AZURE_STORAGE_ACCOUNT_NAME and its key, or AZURE_STORAGE_CONNECTION_STRING"),
    "abfs": ("azure", "AZURE_STORAGE_ACCOUNT_NAME and its key, or AZURE_STORAGE_CONNECTION_STRING"),
    "abfss": ("azure", "AZURE_STORAGE_ACCOUNT_NAME and its key, or AZURE_STORAGE_CONNECTION_STRING"),
}
"""Protocol -> (our extra that brings its driver, where the driver looks for credentials first)."""

_ANONYMOUS = {"s3": "FSSPEC_S3_ANON=true", "gcs": "FSSPEC_GS_TOKEN=anon", "azure": "FSSPEC_ABFS_ANON=true"}
"""Our extra -> setting in the environment with which its driver reads what is public, without credentials."""

_DRIVERS = ("botocore", "aiobotocore", "s3fs", "google", "gcsfs", "azure", "adlfs", "aiohttp")
"""Packages that speak to stores."""


def is_url(place: str) -> bool:
    """Whether a place is a URL (s3://..., simplecache::s3://...) and no path of this machine."""
    return "://" in place or "::" in place


def plain(place: str) -> str:
    """A path or URL without slashes at its end; a file:// URL as the path that it stands for."""
    if place.startswith(("file:", "local:")) and "::" not in place:
        return str(LocalFileSystem._strip_protocol(place))
    shortened = place.rstrip("/")
    if shortened.endswith(":") and is_url(place):  # memory://
        return f"{shortened}//"
    return shortened or place[:1]


def join(folder: str, name: str) -> str:
    """Path or URL of an entry of a folder."""
    folder = plain(folder)
    return folder + name if folder.endswith("/") else f"{folder}/{name}"


def parent(place: str) -> str:
    """Path or URL of the folder in which a file or folder lies."""
    place = plain(place)
    folder, slash, _ = place.rpartition("/")
    if is_url(place) and folder.endswith(":/"):
        return f"{folder}/"
    return folder or slash or "."


def beside(file: str, other: str) -> str:
    """The place that a file names, which may be relative to the file's own folder; both may be URLs."""
    if is_url(other) or posixpath.isabs(other):
        return plain(other)
    protocol, sign, path = join(parent(file), other).rpartition("://")
    return f"{protocol}{sign}{posixpath.normpath(path)}"


def read_text(url: str) -> str:
    """The text of a small file at a path or URL.

    Raises:
        ValueError: it is not there, it is no text, or the store refuses; the message names the reason.
    """
    fs, path = locate(url)
    with explained(url):
        try:
            data = fs.cat_file(path)
        except FileNotFoundError:
            raise ValueError(f"{url} cannot be read: no such file") from None
        except OSError as error:
            raise ValueError(f"{url} cannot be read: {error.strerror or _short(error)}") from None
    assert isinstance(data, bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{url} cannot be read: it is no text in UTF-8") from None


def locate(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or URL, and the path in it.

    Raises:
        ValueError: the URL's driver is not installed, or nobody knows its protocol.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra, _ = _OBJECT_STORES.get(_protocol(url), ("", ""))
        remedy = extras.remedy(extra) if extra else f"install it ({error})"
        raise ValueError(f"{url}: the driver for {_protocol(url)}:// is not installed; {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from None


def is_local(fs: AbstractFileSystem) -> bool:
    """Whether a file system is this machine's own."""
    return "file" in fs.protocol if isinstance(fs.protocol, tuple) else fs.protocol == "file"


def may_read(path: str | Path) -> bool:
    """Whether this user may read a file on this machine's own file system; True where there is none."""
    effective = os.access in os.supports_effective_ids
    return os.access(path, os.R_OK, effective_ids=effective) or not Path(path).exists()


def is_driver_s(error: BaseException) -> bool:
    """Whether a store's driver raised it: the store did not answer as hoped."""
    return type(error).__module__.partition(".")[0] in _DRIVERS


@contextmanager
def explained(url: str) -> Iterator[None]:
    """What a store or its driver refuses inside the block becomes a ValueError that says where to look.

    That something does not exist passes: the caller knows what it means. So do disk errors.
    """
    try:
        yield
    except PermissionError as error:
        raise ValueError(f"{url}: access denied ({_short(error)}); {_where_credentials(url)}") from None
    except Exception as error:
        if not is_driver_s(error):
            raise
        if "credential" in (type(error).__name__ + str(error)).lower():
            raise ValueError(f"{url}: no credentials were found; {_where_credentials(url)}") from None
        raise ValueError(
            f"{url} cannot be reached ({type(error).__name__}: {_short(error)}); check the address, the network"
            f"{_where_endpoint(url)}"
        ) from None


def check_writable(folder: str) -> None:
    """Refuse a folder in which nothing can be written, before work goes into what is to lie there; it stays as it is.

    Raises:
        ValueError: it cannot be written, or nothing can be made below its nearest parent.
    """
    fs, path = locate(folder)
    refuse_http(folder)
    try:
        if is_local(fs):
            here = next(place for place in (Path(path), *Path(path).parents) if place.exists())
            with tempfile.TemporaryFile(dir=here):
                return
        with explained(folder):
            if _protocol(folder) not in _OBJECT_STORES:  # those have no folders that would have to be made
                while path.strip("/") and not fs.exists(path):
                    path = fs._parent(path)
                if fs.isfile(path):
                    raise NotADirectoryError(f"{path} is a file")
            probe = f"{path.rstrip('/')}/.fourds-{uuid.uuid4().hex[:8]}"
            fs.pipe_file(probe, b"fourds")
            fs.rm_file(probe)
            fs.invalidate_cache()
    except NotImplementedError:
        raise ValueError(f"{folder}: nothing can be written there; give another place") from None
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({_short(error)}); give another place") from None


def refuse_http(place: str) -> None:
    """Refuse an address of the web as a place to write, before it is asked for anything.

    Raises:
        ValueError: it is one.
    """
    if _protocol(place) in ("http", "https"):
        raise ValueError(f"{place}: nothing can be written over HTTP; give another place")


def check_file(url: str) -> None:
    """Refuse a place at which no file can be written, before work goes into what is to stand in it.

    Raises:
        ValueError: a folder is there, or its own folder cannot be written.
    """
    fs, path = locate(url)
    with explained(url):
        is_folder = url.endswith("/") or (is_local(fs) and Path(path).is_dir())
    if is_folder:
        raise ValueError(f"{url} is a folder; give a file in it")
    check_writable(parent(url))


def write_bytes(url: str, data: bytes) -> None:
    """Write a small file to a path or URL; it appears whole or not at all."""
    fs, path = fsspec.core.url_to_fs(url)
    if is_local(fs):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        partial = Path(path + ".partial")
        partial.write_bytes(data)
        partial.replace(path)
    elif _protocol(url) in _OBJECT_STORES:
        fs.pipe_file(path, data)  # object stores show an object only once it is whole, and need no folders
    else:
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(path + ".partial", data)
        _rename(fs, path + ".partial", path)


def put_file(url: str, local: Path) -> None:
    """Move a finished local file to a path or URL, where it appears whole or not at all; `local` is gone afterwards.

    Raises:
        OSError: also where the store tells of another size than was sent.
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
    if type(fs).mv is AbstractFileSystem.mv:  # which takes [ and * in names for patterns
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
        f"the driver looks at the environment first ({first}){files}, then at the instance's role; what is public is "
        f"read with {_ANONYMOUS[extra]}"
    )


def _where_endpoint(url: str) -> str:
    """How a store at an address of its own is named to its driver."""
    extra, _ = _OBJECT_STORES.get(_protocol(url), ("", ""))
    if extra == "azure":  # adlfs knows no endpoint by itself
        return " and, for a store of your own, AZURE_STORAGE_CONNECTION_STRING"
    return f" and the endpoint, e.g. FSSPEC_{_protocol(url).upper()}_ENDPOINT_URL" if extra else ""


def _protocol(url: str) -> str:
    return url.partition("://")[0].rpartition("::")[2] if "://" in url else "file"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
