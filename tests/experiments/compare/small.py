"""A comparison that takes seconds: networks of two convolutions on three small sets of images."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import ray
from torch import nn

from fourds_dist.config.loading import to_yaml
from fourds_dist.experiments.compare.plan import ComparisonPlan, read_plan
from tests.data.shards import CLASSES, write_dataset
from tests.training.tiny import NUM_CLASSES, tiny_network

NETWORK = {"arch": "tests.experiments.compare.small:network", "stages": ["layer1", "layer2"]}
STAGE = {"epochs": 1, "global_batch_size": 16, "optim": {"lr": 0.05, "schedule": "cosine"}}
CHANGES: dict[str, Any] = {
    "data": {"resize_px": 8, "crop_px": 8},
    "teacher": NETWORK,
    "student": {**NETWORK, "start": "source"},
    "source_stage": STAGE,
    "adapt_stage": STAGE,
    "distill_stage": STAGE,
    "step": {"log_every_steps": 1},
    "launch": {"runner": "inline", "workers": 1},
    "tracking": {"wandb": "disabled"},
}
METHODS = {
    "4ds": {"method.preset": "4ds"},
    "cross_entropy": {"method.preset": "cross_entropy"},
    "two_stage": {"method.preset": "distillation", "adapt.method": "fine_tune"},
}


def network(num_classes: int) -> nn.Module:
    """The smallest network there is, of two stages."""
    assert num_classes == NUM_CLASSES
    return tiny_network(8)


def deadly(num_classes: int) -> nn.Module:
    """The same; in a task of Ray or a process of a comparison it takes its process with it."""
    in_task = ray.is_initialized() and ray.get_runtime_context().get_task_id()
    if in_task or multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return network(num_classes)


def write_domains(folder: Path, *names: str) -> dict[str, str]:
    """Name -> its shards, 32 images each."""
    classes = (*CLASSES, "dog", "elk")
    return {name: write_dataset(folder / name, [32], classes=classes) for name in names}


def comparison(folder: Path, domains: dict[str, str], *overrides: str, **keys: Any) -> ComparisonPlan:
    """The plan of a comparison in `folder`."""
    given = {"name": "small", "through": "here", "domains": domains, "methods": METHODS} | keys
    changes = CHANGES | given.pop("changes", {})
    path = folder / "comparison.yaml"
    path.write_text(to_yaml({**given, "changes": changes}))
    return read_plan(path, [f"run.dir={folder}/runs", *overrides])
