"""Names of a run's files, checkpoints and networks."""

from __future__ import annotations

from typing import get_args

import pytest

from fourds_dist.config.stage_names import STAGE_TITLES, STAGES, StageName
from fourds_dist.runs import layout
from fourds_dist.runs.layout import DONE, Network, RunFile, checkpoint_name, checkpoint_step, display_name


def test_all_tables_of_stages_have_all_stages_in_order() -> None:
    assert STAGES == get_args(StageName) == tuple(STAGE_TITLES) == tuple(DONE)


@pytest.mark.parametrize("step", [0, 7, 120, 99_999_999, 10**9])
def test_a_checkpoint_s_name_has_its_step(step: int) -> None:
    assert checkpoint_step(checkpoint_name(step)) == step


@pytest.mark.parametrize(
    "name", ["", "checkpoint-", "checkpoint-12", "checkpoint-00000012.partial", "a-checkpoint-00000012"]
)
def test_other_names_are_no_checkpoints(name: str) -> None:
    assert checkpoint_step(name) is None


def test_every_network_has_a_name_for_people_of_its_own() -> None:
    assert len({network.display_name for network in Network}) == len(Network)
    assert display_name(Network.TEACHER_ADAPTED) == display_name("teacher_adapted") == "teacher with adapters"
    assert display_name("other_head") == "other head"


def test_the_module_lists_every_file() -> None:
    assert layout.__doc__ is not None
    assert [file for file in RunFile if file.partition("/")[0] not in layout.__doc__] == []
