"""A stand-in for the Hugging Face hub on this machine: the part of its HTTP interface that downloads of files use."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories and the faults of the next answers."""

    url: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files by name, by repository."""
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and error code of the answers for a repository."""
    cut: list[int] = field(default_factory=list)
    """Numbers of bytes after which the next downloads are cut off."""
    changed: int = 0
    """Number of the next downloads in which a byte is changed."""
    downloads: list[str] = field(default_factory=list)
    """`FILE from BYTE` of each download."""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _answer(self, *, with_body: bool) -> None:
            match = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.path)
            if match is None or match[1] in hub.refused or match[1] not in hub.files:
                self._refuse(
                    *hub.refused.get(match[1], (404, "RepoNotFound")) if match else (404, "RepoNotFound")
                )
                return
            if match[2] not in ("main", COMMIT):
                self._refuse(404, "RevisionNotFound")
                return
            data = hub.files[match[1]].get(match[3])
            if data is None:
                self._refuse(404, "EntryNotFound")
                return
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not with_body:
                return
            hub.downloads.append(f"{match[3]} from {start}")
            body = bytearray(data[start:])
            if hub.changed:
                hub.changed -= 1
                body[len(body) // 2] ^= 1
            if hub.cut:
                body = body[: hub.cut.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

    return Handler


@contextmanager
def hub_stand_in(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Serve a hub, which huggingface_hub uses with an empty cache."""
    hub = Hub("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def timm_config(architecture: str, **pretrained: object) -> bytes:
    """Return a config.json of timm."""
    return json.dumps({"architecture": architecture, "pretrained_cfg": pretrained}).encode()
