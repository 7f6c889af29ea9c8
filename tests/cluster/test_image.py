"""The Dockerfile and what it pins."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"


def pins() -> dict[str, Version]:
    lines = (ROOT / "cluster" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, sign, version = line.partition("==")
            assert sign, f"{line!r} is not name==version"
            pinned[canonicalize_name(name)] = Version(version)
    return pinned


def test_every_dependency_is_pinned_and_new_enough() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = pins()
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *extras["s3"], *extras["gcs"], *extras["azure"]):
        requirement = Requirement(text)
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_the_manifests_name_the_pinned_ray() -> None:
    text = (ROOT / "cluster" / "kubernetes" / "base" / "job.yaml").read_text(encoding="utf-8")
    version = re.search(r"rayVersion: (\S+)", text)
    assert version is not None
    assert Version(version[1]) == pins()["ray"]


def test_no_host_is_named() -> None:
    for path in (DOCKERFILE, ROOT / "cluster" / "constraints.txt"):
        assert "://" not in path.read_text(encoding="utf-8"), path


def test_the_image_runs_as_the_manifests_user() -> None:
    user = re.findall(r"^USER (\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    job = (ROOT / "cluster" / "kubernetes" / "base" / "job.yaml").read_text(encoding="utf-8")
    assert user == ["10001:10001"]
    assert "runAsUser: 10001" in job
    assert "mountPath: /home/fourds" in job
    assert "HOME=/home/fourds" in DOCKERFILE.read_text(encoding="utf-8")


def test_everything_copied_is_let_in() -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[:1] == "!"
    }
    copied = set()
    for line in DOCKERFILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied == allowed


def test_hadolint_agrees() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent) or "hadolint"
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
