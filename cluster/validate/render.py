"""Folders of manifests as the objects that `kubectl apply -k` would send."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

KUBERNETES = Path(__file__).parents[1] / "kubernetes"


class RenderError(ValueError):
    """kustomize refused a folder, or is not there."""


def folders() -> list[Path]:
    """All folders here that one would apply."""
    return [KUBERNETES / "setup", KUBERNETES / "queues", *sorted((KUBERNETES / "overlays").iterdir())]


def tool() -> list[str] | None:
    """kustomize, alone or in kubectl; None where neither is installed."""
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return ["kustomize", "build"] if shutil.which("kustomize") else None


def render(folder: Path) -> list[Object]:
    """The objects of a folder.

    Raises:
        RenderError: kustomize's own words, or that it is missing.
    """
    command = tool()
    if command is None:
        raise RenderError("neither kubectl nor kustomize is installed")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RenderError(f"{folder}: {done.stderr.strip()}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def name_of(object_: Object) -> str:
    """Kind and name, as kubectl writes them."""
    return f"{object_['kind']}/{object_['metadata']['name']}"
