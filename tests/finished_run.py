"""One small finished run, from Python as a notebook would make it, for all tests of results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.small_network import STAGES

NUM_TEST = 359


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards/digits, shards/digits-photos, runs/digits (finished) and seven.png; not to be changed.

    All processes of pytest-xdist share the folder; the first that needs the folder builds it.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _build(tmp_path_factory.mktemp("workplace"))
    folder = tmp_path_factory.getbasetemp().parent / "workplace"
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # a process that failed or died leaves a part
            folder.mkdir()
            _build(folder)
            done.touch()
    return folder


def _build(folder: Path) -> Path:
    from fourds_dist.api import fit
    from fourds_dist.data.datasets.digits import digits
    from fourds_dist.data.pack.writer import pack_domain
    from fourds_dist.inference.loading import load_student

    for name, domain in zip(("digits", "digits-photos"), digits(crops_per_digit=1), strict=True):
        pack_domain(domain, str(folder / "shards" / name))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = {"arch": "tests.small_network:small", "stages": list(STAGES)}
        fit(
            source={"url": "shards/digits"},
            target={"url": "shards/digits-photos"},
            teacher=small,
            student=small,
            data={"resize_px": 18, "crop_px": 16, "flip": False},
            source_stage={"epochs": 4, "global_batch_size": 32},
            distill_stage={"epochs": 3, "global_batch_size": 32},
            launch={"runner": "inline"},
            run={"name": "digits"},
        )
    student = load_student(folder / "runs" / "digits")
    for image in images(folder / "shards" / "digits", label=7):
        (folder / "seven.png").write_bytes(image)
        if student.predict(folder / "seven.png")[0].label == "7":
            break
    return folder


@pytest.fixture
def run_folder(workplace: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(workplace / "runs" / "digits", tmp_path / "runs" / "digits"))


def images(dataset: Path, label: int) -> Iterator[bytes]:
    """A dataset's encoded test images of one class."""
    from fourds_dist.data.format.index import ShardIndex

    tar = dataset / "test-00000.tar"
    index = ShardIndex.from_bytes(Path(f"{tar}.index").read_bytes(), str(tar))
    data = tar.read_bytes()
    for row in (index.labels == label).nonzero()[0]:
        begin = int(index.offsets[row])
        yield data[begin : begin + int(index.sizes[row])]


def one_of_each(dataset: Path) -> dict[int, bytes]:
    """The first test image of each of ten classes."""
    return {label: next(images(dataset, label)) for label in range(10)}
