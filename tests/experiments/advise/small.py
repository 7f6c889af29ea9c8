"""A question that takes seconds: three classes of colours, networks of two convolutions."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from fourds_dist.cli.pack import main as pack
from fourds_dist.config.loading import Draft
from fourds_dist.experiments.advise.plan import AdviseConfig, AdvisePlan, make_plan
from tests.training.tiny import tiny_network

CLASSES = ("blue", "green", "red")
NETWORK = {"arch": "tests.experiments.advise.small:network", "stages": ["layer1", "layer2"]}
STAGE = {"epochs": 3, "global_batch_size": 8, "optim": {"lr": 0.05, "schedule": "cosine"}}
RUN: dict[str, Any] = {
    "data": {"resize_px": 8, "crop_px": 8, "flip": False},
    "teacher": NETWORK,
    "student": {**NETWORK, "start": "source"},
    "source_stage": deepcopy(STAGE),
    "distill_stage": deepcopy(STAGE),
    "step": {"log_every_steps": 20},
    "tracking": {"wandb": "disabled"},
}


def network(num_classes: int) -> nn.Module:
    """The smallest network there is, of two stages."""
    found = tiny_network(8)
    found.fc = nn.Linear(16, num_classes)
    return found


def write_images(folder: Path, *, light: float, num: int = 60, classes: tuple[str, ...] = CLASSES) -> None:
    """Write noisy images whose strongest channel is the class."""
    random = np.random.default_rng(round(100 * light))
    for channel, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(num):
            pixels = random.uniform(0, 0.5, (8, 8, 3)) * light
            pixels[..., 2 - channel % 3] += 0.4 * light
            Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8)).save(folder / name / f"{number}.png")


def write_domains(folder: Path) -> dict[str, str]:
    """Pack a light source and a dark target; name -> shards."""
    found = {}
    for name, light in (("light", 1.0), ("dark", 0.4)):
        write_images(folder / "images" / name, light=light)
        assert pack(["folder", str(folder / "images" / name), str(folder / name)]) == 0
        found[name] = str(folder / name)
    return found


def question(
    folder: Path, domains: dict[str, str], *, budget_s: float = 120.0, methods: Any = None, **changes: Any
) -> AdvisePlan:
    """The question about `domains`, with other values of dotted keys (`__` for the dots)."""
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    source, target = domains.values()
    own = {"source.url": source, "target.url": target, "run.dir": str(folder / "runs")}
    given = Draft(dict(RUN), {}).changed({**own, **keys}, "the test")
    config = AdviseConfig(name="question", budget_s=budget_s, methods=methods, price=2.0)
    return make_plan(config, given, given, folder)
