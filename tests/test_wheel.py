"""The wheel holds what the tree holds: an installed package lacks no template and no kernel that a clone has."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_every_file_of_the_package_is_in_it_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    code = {path.relative_to(ROOT).as_posix() for path in files(ROOT / "fourds_dist")}
    configs = {f"fourds_dist/{path.relative_to(ROOT).as_posix()}" for path in files(ROOT / "configs")}
    assert packed == code | configs
    assert {Path(name).suffix for name in packed} >= {".py", ".j2", ".cu", ".cuh", ".yaml"}


def test_documents_and_pictures_are_a_small_part_of_it(wheel: zipfile.ZipFile) -> None:
    beside_code = (".md", ".svg", ".png", ".jpg", ".gif", ".html")
    sizes = {f.filename: f.file_size for f in wheel.infolist() if f.filename.endswith(beside_code)}
    assert "fourds_dist/method/overview.svg" in sizes
    assert max(sizes.values()) < 40_000, max(sizes, key=sizes.__getitem__)
    assert sum(sizes.values()) < 200_000


def test_it_brings_the_command(wheel: zipfile.ZipFile) -> None:
    (entries,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "fourds = fourds_dist.cli:main" in wheel.read(entries).decode()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
