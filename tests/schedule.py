"""Schedule of the tests under pytest-xdist: which tests share one process, and in which order the groups start.

A group is a file, since its tests share fixtures, or all tests of the shared Ray. pytest-xdist's own groups (`--dist
loadgroup`) do not serve here: they change the ids of tests, which pytest 9.2 no longer allows, and every test is then a
group.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

RAY = "ray"
"""Group of all tests that use the shared Ray."""

LONGEST = (
    RAY,
    "tests/experiments/advise/test_run.py",
    "tests/test_anywhere.py",
    "tests/experiments/executor/test_process_pool.py",
    "tests/data/test_faults.py",
    "tests/stages/test_stages.py",
    "tests/stages/test_students.py",
    "tests/cli/test_train.py",
    "tests/inference/export/test_export.py",
    "tests/fuzz/test_fuzz.py",
    "tests/training/strategies/test_base.py",
    "tests/ops/test_emulated.py",
    "tests/ops/test_memory_saving.py",
    "tests/cli/test_compare.py",
    "tests/models/test_memory_saving.py",
    "tests/data/stream/test_stream.py",
    "tests/ops/norm/test_kernels.py",
    "tests/test_light.py",
    "tests/stages/test_label_free.py",
    "tests/stages/test_probe.py",
    "tests/method/test_without_labels.py",
    "tests/stages/test_network_inputs.py",
    "tests/stages/test_run_identity.py",
    "tests/models/test_norm_fusion.py",
    "tests/reports/test_analysis.py",
    "tests/models/test_backbones.py",
    "tests/benchmark/test_families.py",
    "tests/processes/test_parent_death.py",
    "tests/launch/test_image_inputs.py",
    "tests/method/test_released_fixture.py",
)
"""Groups that take the longest, in the order in which they start; all others start after them, in the order of files.

A long group that starts last leaves the other cores without work at the end.
"""


class GroupScheduling(LoadScopeScheduling):
    """Sends whole groups to the processes, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid, self.config.rootpath)


def group_of(nodeid: str, root: Path) -> str:
    """Return the group of a test."""
    file, *names = nodeid.partition("[")[0].split("::")
    return RAY if names and names[-1] in _ray_tests(root / file) else file


def place(group: str) -> int:
    """Return the place of a group in the order of their starts."""
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)


@cache
def _ray_tests(file: Path) -> frozenset[str]:
    """Return the names of a file's functions that use the fixture `local_ray`."""
    text = file.read_text("utf-8")
    if "local_ray" not in text:  # most files; reading the syntax of all takes seconds in each process
        return frozenset()
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return frozenset(
        function.name
        for function in functions
        if "local_ray" in (ast.get_source_segment(text, function) or "")
    )
