"""A real S3 server for tests: rclone's, over HTTP, which checks signatures; ranges are answered with status 206."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import fsspec.config
import pytest

from fourds_dist.benchmark.partial_content import relay
from fourds_dist.processes.parent_death import bound
from fourds_dist.runs import lease
from tests.harness import s3


@dataclass
class S3Server:
    """A running server; buckets are folders under `root`."""

    endpoint: str
    """http://127.0.0.1:PORT"""
    direct: str
    """The same server without the relay: it answers ranges with status 200."""
    root: Path
    environment: dict[str, str]
    """What a process needs to reach it; set in this one while the fixture lives."""
    _numbers: Iterator[int] = field(default_factory=count)

    def new_bucket(self) -> str:
        """URL of a new, empty bucket of the server."""
        name = f"bucket-{next(self._numbers)}"
        self.fs.mkdir(name)
        return f"s3://{name}"

    @cached_property
    def fs(self) -> Any:
        """A file system of the server itself, whatever endpoint and credentials a test has set.

        The connection is made once: botocore reads its description of S3 for every new one.
        """
        import s3fs

        return s3fs.S3FileSystem(
            key=s3.KEY,
            secret=s3.SECRET,
            endpoint_url=self.endpoint,
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def upload(self, folder: Path, url: str) -> None:
        """Copy a folder's files to a URL."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        targets = [f"{url}/{path.relative_to(folder).as_posix()}" for path in files]
        self.fs.put([str(path) for path in files], targets)

    def path(self, url: str) -> Path:
        """Path of an object on the server's disk, only to read it: the server would not notice a change."""
        return self.root / url.removeprefix("s3://")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server of this session, reached by plain s3:// URLs: credentials and endpoint are in the environment."""
    root = tmp_path_factory.mktemp("s3")
    process = subprocess.Popen(
        bound(s3.serving(str(root), "127.0.0.1:0", str(root.with_name("rclone.conf")))),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    relays = ExitStack()
    try:
        direct = _endpoint(process)
        endpoint = relays.enter_context(relay(direct))
        environment = {
            **s3.reaching(endpoint),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(root.with_name("no-config")),
            "AWS_SHARED_CREDENTIALS_FILE": str(root.with_name("no-credentials")),
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
                patch.delenv(name, raising=False)
            # fsspec reads FSSPEC_* once, when it is imported.
            patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})
            # No other host takes these folders, so a driver need not wait long for a later writer of its lease.
            patch.setattr(lease, "SETTLE_S", 0.2)
            forget_connections()
            yield S3Server(endpoint, direct, root, environment)
        forget_connections()
    finally:
        relays.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No AWS credentials in reach; connections made without them are forgotten afterwards."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    forget_connections()
    yield
    forget_connections()


def forget_connections() -> None:
    """Make fsspec read the environment again: it caches a file system for each set of arguments."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def _endpoint(process: subprocess.Popen[str]) -> str:
    """The address on which the server listens; its later output is read and dropped, or it would block."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if match := re.search(r"Starting s3 server on \[(http://[^/\]]+)", line):
            threading.Thread(target=lambda stderr=process.stderr: [None for _ in stderr], daemon=True).start()
            return match[1]
    raise RuntimeError("rclone did not start:\n" + "".join(lines))
