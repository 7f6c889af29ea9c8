"""Runs cases of a target, minimises a failing one, and stores its files."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz import datasets, files
from tests.fuzz import settings as configurations
from tests.fuzz.bounds import FaultError, check
from tests.fuzz.target import Files, Target

TARGETS = {target.name: target for target in (*datasets.TARGETS, *configurations.TARGETS, *files.TARGETS)}


class _Drawn:
    """A case, which hypothesis does not print: no dataclass, whose fields it would."""

    def __init__(self, files: Files) -> None:
        self.files = files


def run_cases(target: Target, *, num_cases: int, fresh_seed: int | None, at: Path | None = None) -> None:
    """Draw cases and read each of them.

    Args:
        fresh_seed: of the cases; None: the same ones in every process.
        at: folder of a case's files, for processes that outlive this one; None: a temporary folder.

    Raises:
        FaultError: of the smallest case that fails; its `files` are attached as `error.files`.
    """
    last: Files = {}

    def case(drawn: _Drawn) -> None:
        last.clear()
        last.update(drawn.files)
        with tempfile.TemporaryDirectory() as place:
            read_files(target, drawn.files, at or Path(place))

    test = settings(
        max_examples=num_cases,
        deadline=None,
        database=None,
        derandomize=fresh_seed is None,
        phases=(Phase.generate, Phase.shrink) if target.shrinks else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )(given(target.cases.map(_Drawn))(case))
    if fresh_seed is not None:
        test = seed(fresh_seed)(test)
    try:
        test()
    except FaultError as error:
        error.files = dict(last)  # pyright: ignore[reportAttributeAccessIssue]
        raise


def read_files(target: Target, drawn: Files, place: Path) -> None:
    """Write a case's files and read them; see `bounds.check`."""
    folder = place / "case"
    shutil.rmtree(folder, ignore_errors=True)
    write_files(drawn, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(target.read, folder, growth_bytes=target.growth_bytes)


def write_files(drawn: Files, folder: Path) -> None:
    """A case as a folder."""
    folder.mkdir(parents=True)
    for name, data in drawn.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def files_in(folder: Path) -> Files:
    """Read the case of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def keep(target: str, drawn: Files, why: str, failures: Path) -> Path:
    """Write a failing case where it can be replayed from; gives its folder."""
    digest = hashlib.sha256(repr(sorted(drawn.items())).encode()).hexdigest()[:8]
    folder = failures / f"{target}-{digest}"
    shutil.rmtree(folder, ignore_errors=True)
    write_files(drawn, folder / "case")
    (folder / "why.txt").write_text(f"python -m tests.fuzz --replay {folder}\n\n{why}\n", "utf-8", "replace")
    return folder
