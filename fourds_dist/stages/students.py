"""The students of a stage: their initial weights, their files, and the time of a prediction."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn

from fourds_dist.method.output import Predictor
from fourds_dist.models.weights.networks import InitialNetwork, StudentConfig, build, build_initialised
from fourds_dist.runs.layout import Network, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.runner import StageRunner
from fourds_dist.stages.settings import Settings, students_from_source

NUM_TIMED = 30
"""Predictions of which the latency is the median, after WARM_UP others."""
WARM_UP = 5

T = TypeVar("T")


def students_by_key(settings: Settings) -> dict[str, StudentConfig]:
    """Return the students by their keys in metrics: "student", or "student/NAME" of several."""
    return {Network.STUDENT.of_student(name): config for name, config in settings.named_students.items()}


def source_students(stage: StageRunner, num_classes: int) -> dict[str, nn.Module]:
    """Return the students that learn on the source, with random weights, by their keys."""
    found = students_from_source(stage.settings)
    return _from_one_state(
        found, lambda key: build(found[key], num_classes, image_size=stage.inputs[key].image_px)
    )


def initial_students(stage: StageRunner, classes: tuple[str, ...]) -> dict[str, InitialNetwork]:
    """Return the students before distillation, by their keys."""
    students = stage.settings.named_students

    def initial(name: str) -> InitialNetwork:
        config = students[name]
        return build_initialised(
            config,
            len(classes),
            start=start_of(stage.folder, name, config),
            key="student.start",
            image_size=stage.inputs[Network.STUDENT.of_student(name)].image_px,
            run=stage.needs(config, classes),
            notify=stage.notify,
        )

    found = _from_one_state(students, initial)
    return {Network.STUDENT.of_student(name): network for name, network in found.items()}


def start_of(folder: RunFolder, name: str, config: StudentConfig) -> str:
    """Return the initial weights of a student in distillation: those of the source stage, or as configured."""
    return folder.path(RunFile.STUDENT_SOURCE.of_student(name)) if config.start == "source" else config.start


def _from_one_state(names: Mapping[str, object], build_one: Callable[[str], T]) -> dict[str, T]:
    """Build each network from the same state of the random generator, so that each starts as in a run of its own.

    The state afterwards is that after the first network.
    """
    built: dict[str, T] = {}
    state = torch.get_rng_state()
    after = state
    for name in names:
        torch.set_rng_state(state)
        built[name] = build_one(name)
        after = after if len(built) > 1 else torch.get_rng_state()
    torch.set_rng_state(after)
    return built


@torch.no_grad()
def latencies_ms(
    predictors: Mapping[str, Predictor], side_px: int, device: torch.device, *, autocast: bool
) -> dict[str, float]:
    """Return the median time of a prediction of one image, in milliseconds, by network.

    The networks take turns, so that other work on the machine delays all of them equally.

    Args:
        side_px: side of the images of a batch in pixels.
        autocast: whether the networks run in bfloat16.
    """
    image = torch.zeros(1, 3, side_px, side_px, device=device)
    times: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(WARM_UP + NUM_TIMED):
        for name, predict in predictors.items():
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                predict(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(of[WARM_UP:]) for name, of in times.items()}
