"""Whether a launcher of ranks started this process: torchrun, or one that sets the same variables.

torch.distributed (`env://`) needs four variables. A lone WORLD_SIZE, as some schedulers set, makes no rank.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from fourds_dist.config import ConfigError

GROUP = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TORCHRUN = "TORCHELASTIC_RUN_ID"


def group_size(environment: Mapping[str, str] | None = None) -> int | None:
    """Number of ranks that a launcher started, this process being one of them; None: this process is alone.

    Raises:
        ConfigError: the variables tell of several ranks, and some are missing or are no numbers.
    """
    given = os.environ if environment is None else environment
    missing = [name for name in GROUP if not given.get(name)]
    if not missing:
        rank, size = (_number(name, given) for name in ("RANK", "WORLD_SIZE"))
        if not 0 <= rank < size:
            raise ConfigError(
                f"RANK={rank} is none of the ranks 0 to {size - 1} of WORLD_SIZE={size}; {_REMEDY}"
            )
        return size
    tells_a_rank = "RANK" not in missing and "WORLD_SIZE" not in missing
    if TORCHRUN in given or (tells_a_rank and _number("WORLD_SIZE", given) > 1):
        there = ", ".join(f"{name}={given[name]}" for name in (*GROUP, TORCHRUN) if given.get(name))
        raise ConfigError(
            f"the environment tells of ranks ({there}), but {', '.join(missing)} is not set; {_REMEDY}"
        )
    return None


def _number(name: str, given: Mapping[str, str]) -> int:
    try:
        return int(given[name])
    except ValueError:
        raise ConfigError(f"{name}={given[name]} in the environment is no number; {_REMEDY}") from None


_REMEDY = (
    "start the ranks by torchrun, which sets all of RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or unset RANK and "
    "WORLD_SIZE for a process alone"
)
