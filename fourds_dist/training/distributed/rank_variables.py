"""Detection of a launcher of ranks: torchrun, or another one that sets the same environment variables.

torch.distributed (`env://`) needs four variables. Some schedulers set only WORLD_SIZE, which is ignored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from fourds_dist.config.section import ConfigError

GROUP = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TORCHRUN = "TORCHELASTIC_RUN_ID"
LOCAL_RANKS = (
    "LOCAL_RANK",
    "SLURM_LOCALID",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "PMI_LOCAL_RANK",
)
"""Variables with the number of a rank on its machine: torchrun's, then those of srun and mpirun, which remain the only
ones if a script sets just GROUP from srun's or mpirun's variables."""


def group_size(environment: Mapping[str, str] | None = None) -> int | None:
    """Return the number of ranks that a launcher started; None if this process is the only one.

    Raises:
        ConfigError: the variables define several ranks, and some variables are missing or not numbers.
    """
    given = os.environ if environment is None else environment
    missing = [name for name in GROUP if not given.get(name)]
    if not missing:
        rank, size = (_number(name, given) for name in ("RANK", "WORLD_SIZE"))
        if not 0 <= rank < size:
            raise ConfigError(
                f"RANK={rank} is not one of the ranks 0 to {size - 1} of WORLD_SIZE={size}; {_REMEDY}"
            )
        return size
    has_rank = "RANK" not in missing and "WORLD_SIZE" not in missing
    if TORCHRUN in given or (has_rank and _number("WORLD_SIZE", given) > 1):
        found = ", ".join(f"{name}={given[name]}" for name in (*GROUP, TORCHRUN) if given.get(name))
        raise ConfigError(
            f"the environment defines ranks ({found}), but {', '.join(missing)} is not set; {_REMEDY}"
        )
    return None


def local_rank(environment: Mapping[str, str] | None = None) -> int:
    """Return the number of this rank on its machine; 0 without a variable.

    Raises:
        ConfigError: the variable is not a number.
    """
    given = os.environ if environment is None else environment
    return next((_number(name, given) for name in LOCAL_RANKS if given.get(name)), 0)


def _number(name: str, given: Mapping[str, str]) -> int:
    try:
        return int(given[name])
    except ValueError:
        raise ConfigError(f"{name}={given[name]} in the environment is not a number; {_REMEDY}") from None


_REMEDY = (
    "start the ranks by torchrun, which sets all of RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or unset RANK and "
    "WORLD_SIZE for a single process"
)
