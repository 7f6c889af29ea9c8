"""Variables of a launcher of ranks: all together make a rank, and incomplete ones are refused."""

from __future__ import annotations

import pytest

from fourds_dist.config.section import ConfigError
from fourds_dist.training.distributed.rank_variables import GROUP, TORCHRUN, group_size, local_rank
from tests.launch.test_torchrun import RANK_1_OF_4


def test_the_environment_of_this_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*GROUP, TORCHRUN):
        monkeypatch.delenv(name, raising=False)
    assert group_size() is None
    for name, value in RANK_1_OF_4.items():
        monkeypatch.setenv(name, value)
    assert group_size() == 4
    monkeypatch.setenv("MASTER_PORT", "")  # an empty variable is not set
    with pytest.raises(ConfigError, match=r"\(RANK=1, WORLD_SIZE=4, .*\), but MASTER_PORT is not set"):
        group_size()


@pytest.mark.parametrize(
    ("variables", "size"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1"}, None),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "0", "NODE_RANK": "0"}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"}, None),
        ({"MASTER_ADDR": "node-0", "MASTER_PORT": "29500", "WORLD_SIZE": "1"}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        (RANK_1_OF_4, 4),
        (RANK_1_OF_4 | {TORCHRUN: "none"}, 4),
        ({**RANK_1_OF_4, "RANK": "0", "WORLD_SIZE": "1"}, 1),
    ],
)
def test_only_all_variables_together_make_a_rank(variables: dict[str, str], size: int | None) -> None:
    assert group_size(variables) == size


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"RANK": "1", "WORLD_SIZE": "4"},
            "MASTER_ADDR, MASTER_PORT is not set; start the ranks by torchrun",
        ),
        ({TORCHRUN: "none", "WORLD_SIZE": "4"}, "RANK, MASTER_ADDR, MASTER_PORT is not set"),
        (RANK_1_OF_4 | {"RANK": "4"}, "RANK=4 is not one of the ranks 0 to 3"),
        (RANK_1_OF_4 | {"WORLD_SIZE": "four"}, "WORLD_SIZE=four in the environment is not a number"),
    ],
)
def test_incomplete_rank_variables_are_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        group_size(variables)


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "3"}, 3),
        ({"LOCAL_RANK": "3", "SLURM_LOCALID": "0"}, 3),  # torchrun under srun
        ({"SLURM_LOCALID": "2", "SLURM_PROCID": "6"}, 2),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "LOCAL_RANK": ""}, 1),
        ({"MPI_LOCALRANKID": "1"}, 1),
    ],
)
def test_a_rank_has_the_gpu_of_its_number_on_its_machine(variables: dict[str, str], rank: int) -> None:
    assert local_rank(RANK_1_OF_4 | variables) == rank


def test_a_local_rank_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="SLURM_LOCALID=first in the environment is not a number"):
        local_rank({"SLURM_LOCALID": "first"})
