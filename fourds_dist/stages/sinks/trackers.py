"""The trackers of a run: each is a sink of events. A new one is an entry of TrackingConfig.tools and of `trackers`."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from fourds_dist.config.loading import to_yaml
from fourds_dist.io.extras import fix
from fourds_dist.runs.events import Sink
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.sinks import mlflow, tensorboard, wandb
from fourds_dist.stages.sinks.background import Background
from fourds_dist.stages.sinks.tracking_config import TrackingConfig

OBEYED = (*wandb.OBEYED, *mlflow.OBEYED)
"""Variables of trackers that are passed to workers on other machines."""

_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}
"""Tracker -> package of the extra of its name."""


def check_trackers(config: TrackingConfig) -> None:
    """Check that the trackers are installed and have the settings that they need.

    Raises:
        ValueError: a package or a variable is missing; the message has the remedy.
    """
    for tool in config.tools:
        package = _PACKAGES.get(tool)
        if package is not None and importlib.util.find_spec(package) is None:
            raise ValueError(f"tracking.tools={tool} needs {package}: {fix(tool)}")
    if "mlflow" in config.tools and not os.environ.get(mlflow.URI):
        raise ValueError(
            f"tracking.tools=mlflow needs the variable {mlflow.URI}: set it to the URL of a server (http://HOST:5000) "
            "or of a database (sqlite:////PATH/mlflow.db)"
        )


def trackers(config: TrackingConfig, folder: RunFolder, stage: str, settings: dict[str, Any]) -> list[Sink]:
    """Return the sinks of the configured trackers for one stage.

    Args:
        settings: the configuration of the run.
    """
    sinks: list[Sink] = []
    for tool in dict.fromkeys(config.tools):
        match tool:
            case "wandb":
                sinks.append(wandb.Wandb(config, folder, stage, settings))
            case "tensorboard":
                start = tensorboard.starter(folder, stage, to_yaml(settings))
                sinks.append(Background("TensorBoard", start))
            case "mlflow":
                start = _mlflow(config, folder, stage, settings)
                sinks.append(Background("MLflow", start))
    return sinks


def _mlflow(config: TrackingConfig, folder: RunFolder, stage: str, settings: dict[str, Any]) -> Any:
    return lambda: mlflow.Mlflow(config, folder, stage, settings)
