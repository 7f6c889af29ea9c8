"""A stand-in for the Hugging Face hub on this machine: the part of its HTTP interface for files and repositories.

huggingface_hub's client talks to it: downloads, accounts, new repositories and branches, uploads and commits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".pt2", ".onnx", ".bin")


@dataclass
class Hub:
    """Repositories and the faults of the next answers."""

    url: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files by name, by repository, or by `owner/name@branch`."""
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and error code of the answers for a repository."""
    refused_commits: dict[str, int] = field(default_factory=dict)
    """Status of the answers to commits to a repository."""
    cut: list[int] = field(default_factory=list)
    """Numbers of bytes after which the next downloads are cut off."""
    changed: int = 0
    """Number of the next downloads in which a byte is changed."""
    failed_uploads: int = 0
    """Number of the next uploads of large files that fail."""
    downloads: list[str] = field(default_factory=list)
    """`FILE from BYTE` of each download."""
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Answer of whoami by token."""
    private: set[str] = field(default_factory=set)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)
    """(repository or repository@branch, changed files) of each commit."""
    heads: dict[str, str] = field(default_factory=dict)
    """Newest commit of a repository or repository@branch; COMMIT at first."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Uploaded large files by SHA-256 sum."""
    snapshots: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    """Files of (repository, commit)."""

    def at(self, name: str, revision: str) -> str | None:
        """The key of `files` for a revision; None: no such revision."""
        if revision in ("main", self.heads.get(name, COMMIT)):
            return name
        branch = f"{name}@{revision}"
        return branch if branch in self.files else None


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if path == "/api/whoami-v2":
                account = hub.accounts.get(self._token())
                self._json(account) if account else self._refuse(401, "")
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
                self._describe(match[1], match[2], match[3] or "main")
            else:
                self._answer(with_body=True)

        def do_PUT(self) -> None:
            data, oid = self._body(), self.path.rpartition("/")[2]
            if hub.failed_uploads:
                hub.failed_uploads -= 1
                self._refuse(503, "")
                return
            assert hashlib.sha256(data).hexdigest() == oid
            hub.objects[oid] = data
            self._json({})

        def do_POST(self) -> None:
            body = self._body()
            path = unquote(urlsplit(self.path).path)
            if path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
                return
            account = hub.accounts.get(self._token())
            if account is None or account["auth"]["accessToken"]["role"] == "read":
                self._refuse(403 if account else 401, "")
                return
            posts: dict[str, Callable[..., None]] = {
                r"/api/repos/create": self._create,
                r"/api/models/([^/]+/[^/]+)/branch/(.+)": self._branch,
                r"/api/models/([^/]+/[^/]+)/preupload/(.+)": self._preupload,
                r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch": self._batch,
                r"/api/models/([^/]+/[^/]+)/commit/(.+)": self._commit,
            }
            for pattern, answer in posts.items():
                if match := re.fullmatch(pattern, path):
                    answer(*match.groups(), body=body)
                    return
            self._refuse(404, "")

        def _token(self) -> str:
            return self.headers.get("authorization", "").removeprefix("Bearer ")

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def _json(self, value: object, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _may_read(self, name: str) -> bool:
            if name in hub.refused:
                self._refuse(*hub.refused[name])
            elif name not in hub.files or (name in hub.private and self._token() not in hub.accounts):
                self._refuse(404 if self._token() in hub.accounts else 401, "RepoNotFound")
            else:
                return True
            return False

        def _describe(self, name: str, kind: str | None, revision: str) -> None:
            if not self._may_read(name):
                return
            key = hub.at(name, revision)
            if key is None:
                self._refuse(404, "RevisionNotFound")
            elif kind == "tree":
                self._json([{"type": "file", "path": file, "size": len(data), "oid": _oid(file, data)}
                            for file, data in hub.files[key].items()])  # fmt: skip
            else:
                siblings = [{"rfilename": file} for file in hub.files[key]]
                sha = hub.heads.get(key, COMMIT)
                self._json({"id": name, "sha": sha, "private": name in hub.private, "siblings": siblings})

        def _create(self, *, body: bytes) -> None:
            given = json.loads(body)
            owner = given["organization"] or hub.accounts[self._token()]["name"]
            name = f"{owner}/{given['name']}"
            is_new = name not in hub.files
            if is_new:
                hub.files[name] = {".gitattributes": b""}
                if given.get("private") or given.get("visibility") == "private":
                    hub.private.add(name)
            self._json({"url": f"{hub.url}/{name}"}, 200 if is_new else 409)

        def _branch(self, name: str, branch: str, *, body: bytes) -> None:
            key = f"{name}@{branch}"
            is_new = key not in hub.files
            hub.files.setdefault(key, dict(hub.files[name]))
            hub.heads.setdefault(key, hub.heads.get(name, COMMIT))
            self._json({}, 201 if is_new else 409)

        def _preupload(self, name: str, revision: str, *, body: bytes) -> None:
            existing = hub.files[hub.at(name, revision) or name]
            self._json({"files": [
                {
                    "path": file["path"], "shouldIgnore": False,
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "oid": _oid(file["path"], existing[file["path"]]) if file["path"] in existing else None,
                } for file in json.loads(body)["files"]
            ]})  # fmt: skip

        def _batch(self, name: str, *, body: bytes) -> None:
            objects = []
            for each in json.loads(body)["objects"]:
                upload = {"href": f"{hub.url}/objects/{each['oid']}"}
                objects.append(
                    each if each["oid"] in hub.objects else {**each, "actions": {"upload": upload}}
                )
            self._json({"transfer": "basic", "objects": objects})

        def _commit(self, name: str, revision: str, *, body: bytes) -> None:
            key = hub.at(name, revision)
            assert key is not None
            if name in hub.refused_commits:
                self._refuse(hub.refused_commits[name], "")
                return
            files, changes = dict(hub.files[key]), []
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                match line["key"]:
                    case "header":
                        if value.get("parentCommit", hub.heads.get(key, COMMIT)) != hub.heads.get(
                            key, COMMIT
                        ):
                            self._refuse(412, "")
                            return
                        continue
                    case "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    case "lfsFile":
                        files[value["path"]] = hub.objects[value["oid"]]
                    case "deletedFile":
                        del files[value["path"]]
                changes.append(value["path"])
            hub.snapshots[name, hub.heads.get(key, COMMIT)] = hub.files[key]
            hub.files[key] = files
            hub.commits.append((key, changes))
            sha = hashlib.sha1(f"{len(hub.commits)}".encode()).hexdigest()
            hub.heads[key] = sha
            hub.snapshots[name, sha] = files
            self._json({"success": True, "commitOid": sha, "commitUrl": f"{hub.url}/{name}/commit/{sha}"})

        def _answer(self, *, with_body: bool) -> None:
            match = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.path)
            if match is None:
                self._refuse(404, "RepoNotFound")
                return
            name, revision = match[1], unquote(match[2])
            if not self._may_read(name):
                return
            key = hub.at(name, revision)
            files = hub.files[key] if key else hub.snapshots.get((name, revision))
            if files is None:
                self._refuse(404, "RevisionNotFound")
                return
            data = files.get(match[3])
            if data is None:
                self._refuse(404, "EntryNotFound")
                return
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", hub.heads.get(key, COMMIT) if key else revision)
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


def _oid(file: str, data: bytes) -> str:
    """The identifier of a file's content: the SHA-256 sum of a large file, that of git for others."""
    if file.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def account(name: str = "owner", role: str = "write", **more: Any) -> dict[str, Any]:
    """The answer of whoami for a token."""
    token = {"displayName": f"{name}-{role}", "role": role, **more.pop("token", {})}
    return {"type": "user", "name": name, "orgs": [], "auth": {"accessToken": token}, **more}


@contextmanager
def hub_stand_in(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Serve a hub, which huggingface_hub uses with an empty cache and without a token."""
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
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def timm_config(architecture: str, **pretrained: object) -> bytes:
    """Return a config.json of timm."""
    return json.dumps({"architecture": architecture, "pretrained_cfg": pretrained}).encode()
