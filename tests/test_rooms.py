"""Imports run one way: from a folder of the package only to those named before it, and never in a circle of files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fourds_dist

ROOT = Path(fourds_dist.__file__).parent

ROOMS = (
    "io", "processes", "ops", "config", "data", "runs", "models", "method", "training", "stages", "inference",
    "reports", "launch", "experiments", "cli", "benchmark",
)  # fmt: skip
"""Folders of the package, the lowest first. The files beside them may import from all."""

LIBRARIES = {
    "ray": ("launch/ray", "experiments", "benchmark"),
    "deepspeed": ("training/strategies",),
    "wandb": ("stages/sinks",),
    "tensorboardX": ("stages/sinks",),
    "mlflow": ("stages/sinks",),
    "torchvision": ("io/light_torchvision.py", "benchmark"),
}
"""Library -> the only folders and files that may import it."""

PRIVATE = ("ray._private", "ray.train.v2._internal", "ray.air._internal")
"""Modules of Ray that are not public; one file alone may import them."""


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules and names that a file imports, anywhere in it, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = ["fourds_dist", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(path: Path) -> str | None:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else None


def test_every_folder_is_a_room() -> None:
    assert {room for path in files() if (room := room_of(path))} == set(ROOMS)


def test_imports_run_one_way() -> None:
    wrong = []
    for path in files():
        if (room := room_of(path)) is None:
            continue
        below = {*ROOMS[: ROOMS.index(room) + 1]}
        wrong += [
            f"{path.relative_to(ROOT)} imports {name}"
            for name in imports(path)
            if name.startswith("fourds_dist.") and name.split(".")[1] not in below
        ]
    assert wrong == []


def _edges() -> Iterator[tuple[str, set[str]]]:
    modules = {module_of(path) for path in files()}
    for path in files():
        named = {name if name in modules else name.rpartition(".")[0] for name in imports(path)}
        yield module_of(path), (named & modules) - {module_of(path)}


def test_no_circle_of_files() -> None:
    try:
        TopologicalSorter(dict(_edges())).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]), pytrace=False)


def test_no_circle_of_folders() -> None:
    """A folder and its own sub-folder may import each other."""
    folders = {module_of(path): path.parent for path in files()}
    edges: dict[Path, set[Path]] = {}
    for module, imported in _edges():
        folder = folders[module]
        others = {folders[name] for name in imported}
        edges.setdefault(folder, set()).update(
            other for other in others if not (other.is_relative_to(folder) or folder.is_relative_to(other))
        )
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        circle = [str(folder.relative_to(ROOT)) for folder in error.args[1]]
        pytest.fail(" -> ".join(circle), pytrace=False)


@pytest.mark.parametrize("library", LIBRARIES)
def test_who_knows_a_library(library: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in files()
        if any(name.split(".")[0] == library for name in imports(path))
        and not str(path.relative_to(ROOT)).startswith(LIBRARIES[library])
    ]
    assert wrong == []


def test_private_names_of_ray_stand_in_one_module() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in files()
        for name in imports(path)
        if name.startswith(PRIVATE) or "ray._private" in path.read_text(encoding="utf-8")
    }
    assert users == {"launch/ray/ray_private.py"}
