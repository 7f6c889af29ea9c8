"""The section `tracking` of the configuration: which trackers follow a run, and names for them."""

from __future__ import annotations

import os
from typing import Literal

from fourds_dist.config.section import ConfigSection

PROJECT = "fourds_dist"


class TrackingConfig(ConfigSection):
    """Trackers: Weights & Biases, TensorBoard, MLflow."""

    tools: tuple[Literal["wandb", "tensorboard", "mlflow"], ...] = ("wandb",)
    """Trackers of the run; []: none. `wandb`: Weights & Biases. `tensorboard`: event files in tensorboard/ in the run's
    folder. `mlflow`: the MLflow server or store of MLFLOW_TRACKING_URI. A tracker that fails ends no run."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: the mode of WANDB_MODE and WANDB_DISABLED. Without these, online if there is an API key for the server
    (WANDB_BASE_URL), and otherwise offline, under the run's folder."""

    project: str | None = None
    """W&B project and MLflow experiment; null: WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME, or else fourds_dist."""

    entity: str | None = None
    """W&B user or team; null: WANDB_ENTITY, or else the default of the API key."""

    group: str | None = None
    """W&B group, and `group` among the tags of MLflow; null: WANDB_RUN_GROUP, or else the run's name, which groups its
    stages."""

    tags: tuple[str, ...] = ()
    """Tags in W&B and MLflow (there also NAME=VALUE); []: those of WANDB_TAGS (separated by commas)."""


def tags_of(config: TrackingConfig) -> list[str]:
    """Return the configured tags, or those of WANDB_TAGS, which W&B reads only when it is set up, once a process."""
    given = (tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(","))
    return list(config.tags) or [tag for tag in given if tag]


def group_of(config: TrackingConfig, run_name: str) -> str:
    """Return the name that groups the stages of a run, or the runs of a sweep or comparison."""
    return config.group or os.environ.get("WANDB_RUN_GROUP") or run_name
