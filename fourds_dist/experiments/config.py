"""The keys that the files of sweeps and of comparisons share; importing this module imports no training code."""

from __future__ import annotations

from typing import Any

from fourds_dist.config.section import ConfigSection


class ExperimentConfig(ConfigSection):
    """Base of the files of experiments, which declare these keys again with their documentation."""

    name: str
    config: str | None
    changes: dict[str, Any]
