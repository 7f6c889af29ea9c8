"""The schedule of the tests: files stay together, and so do all tests of the shared Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.schedule import LONGEST, RAY, group_of, place

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/cli/test_train.py::test_more_workers_than_the_cluster_has", RAY),
        ("tests/launch/ray/test_train.py::test_a_list_that_ray_cannot_write_for_a_while_ends_no_run", RAY),
        ("tests/experiments/sweep/test_ray_tune.py::test_other_schedulers_come_to_their_end[median]", RAY),
        ("tests/cli/test_train.py::TestRefused::test_no_shards", "tests/cli/test_train.py"),
        ("tests/io/test_url.py::test_names[local_ray::a]", "tests/io/test_url.py"),
    ],
)
def test_groups(nodeid: str, group: str) -> None:
    assert group_of(nodeid, ROOT) == group


def test_long_groups_start_first() -> None:
    assert [group for group in LONGEST if group != RAY and not (ROOT / group).is_file()] == []
    places = [place(group) for group in (*LONGEST, "tests/test_schedule.py", "tests/test_readme.py")]
    assert places == [*range(len(LONGEST)), len(LONGEST), len(LONGEST)]
