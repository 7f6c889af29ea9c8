"""One stage on one worker: its batches, its length, and the tools that all stages share.

Where it was started (Ray, torchrun, one process) shows only in the `World` it joins, the `CheckpointStore` it is given
and the sinks of its events. What the stages do with these tools is in `stages`.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from fourds_dist.data import (
    Split,
    StreamConfig,
    TrainStream,
    evaluation_batches,
    open_split,
)
from fourds_dist.data.kept import Budget, KeptImages
from fourds_dist.data.manifest import read_manifest
from fourds_dist.data.preprocessing import Preprocessing
from fourds_dist.data.url import split_pattern
from fourds_dist.method.backbones import BackboneConfig
from fourds_dist.method.distiller import Predictor
from fourds_dist.runs.events import Event, Note, Sink, StageStarted, StepLogged
from fourds_dist.runs.layout import StageName
from fourds_dist.settings import Settings
from fourds_dist.training.evaluate import Accuracy, ImagesOfBatch, evaluate
from fourds_dist.training.grey_ranges import grey_ranges_of
from fourds_dist.training.loop import StageConfig, Surroundings, fit
from fourds_dist.training.networks import metadata
from fourds_dist.training.run_folder import MetricsFile, RunFolder
from fourds_dist.training.snapshot import Best
from fourds_dist.training.step import TrainStep
from fourds_dist.training.stop import StopSignal
from fourds_dist.training.store import CheckpointStore
from fourds_dist.training.strategy import make_strategy
from fourds_dist.training.tracking import Wandb
from fourds_dist.training.trial_step import leave_unreached
from fourds_dist.training.weights_about import About
from fourds_dist.training.world import World

SECTION: dict[StageName, str] = {"source": "source_stage", "adapt": "adapt_stage", "distill": "distill"}
"""The section of the configuration that says how long a stage is, and how it learns."""


def stage_config(name: StageName, settings: Settings) -> StageConfig:
    """Length and learning rates of a stage."""
    return getattr(settings, SECTION[name])


def train_splits(name: StageName, settings: Settings) -> dict[str, Split]:
    """The training splits that a stage draws its batches from, by domain, its own domain first."""
    seed = settings.run.seed
    if name == "source":
        return {"source": open_split(settings.source, "train", seed=seed)}
    splits = {"target": open_split(settings.target, "train", seed=seed)}
    if settings.data.source_fraction > 0:
        splits["source"] = open_split(settings.source, "train", seed=seed)
    return splits


def train_stream(
    name: StageName,
    settings: Settings,
    splits: Mapping[str, Split],
    rank: int,
    world_size: int,
    budget: Budget | None = None,
) -> TrainStream:
    """A rank's part of a stage's batches."""
    return TrainStream(
        splits,
        settings.data,
        global_batch_size=stage_config(name, settings).global_batch_size,
        rank=rank,
        world_size=world_size,
        seed=settings.run.seed,
        budget=budget,
    )


class Stage:
    """What all stages share: this worker's tools, made from the configuration."""

    def __init__(
        self,
        name: StageName,
        settings: Settings,
        world: World,
        folder: RunFolder,
        make_store: Callable[[Callable[[str], None]], CheckpointStore],
        sinks: tuple[Sink, ...],
        stop: StopSignal,
        happened: Callable[[], list[str]],
    ) -> None:
        self.name: StageName = name
        self.settings, self.world, self.folder = settings, world, folder
        self._sinks, self._stop, self._happened = sinks, stop, happened
        self._budget = settings.data.budget()
        self._kept: dict[str, KeptImages] = {}
        self._troubles: list[str] = []
        self._remarks: list[str] = []
        self._store = make_store(self._troubles.append)
        self._has_begun = False

    def tell(self, text: str) -> None:
        """Note a line on what the stage begins with; the run's log has it once, at the stage's first start."""
        if text not in self._remarks:
            self._remarks.append(text)

    def split(self, domain: StreamConfig, split: Literal["train", "val", "test"]) -> Split:
        """One split of `settings.source` or `settings.target`."""
        return open_split(domain, split, seed=self.settings.run.seed)

    def fit(
        self, task: nn.Module, selected: str, domain: StreamConfig
    ) -> tuple[Best, TrainStep, list[float]]:
        """Train on the domain, choosing on its validation split; also the images/s of every log interval.

        The task is left plain, on this worker's device.
        """
        settings, world = self.settings, self.world
        config, data = stage_config(self.name, settings), settings.data
        self._has_begun = self.world.gather(self._store.newest() if world.is_main else None)[0] is not None
        splits = train_splits(self.name, settings)
        stream = train_stream(self.name, settings, splits, world.rank, world.size, self._budget)
        identity = {
            "networks": f"{settings.teacher.arch} -> {settings.student.arch}",
            "data": "+".join(s.fingerprint for s in splits.values()),
            "frozen weights": _fingerprint([p for p in task.parameters() if not p.requires_grad]),
        }
        leave_unreached(task, num_images=2, side_px=data.crop_px, tell=self.tell)
        self._tell_absent_classes(domain, "val")
        num_steps = config.epochs * stream.num_steps_per_epoch
        strategy = make_strategy(
            settings.launch.strategy,
            world,
            config.optim,
            num_steps,
            deepspeed=settings.launch.deepspeed,
            all_reduce=settings.launch.all_reduce,
        )
        step = TrainStep(
            task.to(world.device),
            world,
            settings.step,
            mean=data.mean,
            std=data.std,
            global_batch_size=config.global_batch_size,
            strategy=strategy,
        )
        if not world.is_main:  # with one seed for all, networks would drop the same on every rank
            torch.manual_seed(
                int(np.random.SeedSequence((settings.run.seed, world.rank)).generate_state(1)[0])
            )
        rates: list[float] = []
        best = fit(
            task,
            step,
            strategy,
            stream,
            lambda: self.evaluate(
                task.predictors(),  # pyright: ignore[reportCallIssue]
                domain,
                "val",
                step,
                in_step_px=data.crop_px if strategy.in_step else None,
            ),
            Surroundings(
                self._store, self._emitter(rates), self._stop, self.folder.write_json, self._what_happened
            ),
            config=config,
            selected=selected,
            identity=identity,
            world=world,
            log_every_steps=settings.step.log_every_steps,
            max_bad_steps=settings.step.max_bad_steps,
        )
        return best, step, rates

    def evaluate(
        self,
        predictors: Mapping[str, Predictor],
        domain: StreamConfig,
        split: Literal["val", "test"],
        step: ImagesOfBatch,
        *,
        in_step_px: int | None = None,
    ) -> dict[str, Accuracy]:
        """Accuracies over all workers on one split."""
        images = self.split(domain, split)
        kept = self._kept.setdefault(images.fingerprint, KeptImages(self._budget))
        batches = evaluation_batches(
            images,
            self.settings.data,
            batch_size_per_rank=self.settings.step.eval_batch_size_per_rank,
            rank=self.world.rank,
            world_size=self.world.size,
            kept=kept,
        )
        num_classes = len(images.classes)
        return evaluate(predictors, batches, step, self.world, num_classes=num_classes, in_step_px=in_step_px)

    def needs(self, network: BackboneConfig, classes: tuple[str, ...]) -> About:
        """What the run needs a network to be, to hold against what files of weights say of themselves."""
        return About.of_run(
            self.settings.data,
            network,
            classes,
            has_source=self.settings.source.url is not None,
            grey_ranges=grey_ranges_of(self.settings),
        )

    def about(self, network: BackboneConfig, classes: tuple[str, ...], **more: Any) -> dict[str, str]:
        """What a file of weights says of itself: network, classes, and how an image becomes its input."""
        domain = self.settings.source if self.name == "source" else self.settings.target
        prepared = Preprocessing.of(self.settings.data, self.split(domain, "train").grey_range)
        return metadata(network, classes, preprocessing=prepared.to_json(), **more)

    def _tell_absent_classes(self, domain: StreamConfig, split: Literal["val", "test"]) -> None:
        """Name the classes of which a split has no labelled image: what it measures says nothing of them."""
        assert domain.url is not None
        manifest = read_manifest(split_pattern(domain.url)[0])
        counts = manifest.class_counts[split]
        absent = [name for name, count in zip(manifest.classes, counts, strict=True) if not count]
        if absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            self.tell(
                f"{domain.url}: its {split!r} split has no labelled image of {len(absent)} of {len(counts)} classes "
                f"({', '.join(absent[:5])}{more}); neither accuracy nor its mean over classes there says "
                "anything of them"
            )

    def _what_happened(self) -> list[str]:
        """What befell the run since its last start, and before its first step what the stage begins with."""
        return [*self._happened(), *([] if self._has_begun else self._remarks)]

    def _emitter(self, rates: list[float]) -> Sink:
        """Sends events to every sink, which rank 0 alone has; the first event opens the files: it has the step."""
        sinks: list[Sink] = []

        def emit(event: Event) -> None:
            while self._troubles and not isinstance(event, StageStarted):
                # The thread that writes checkpoints has noted them.
                send(Note(step=event.step, text=self._troubles.pop(0)))
            send(event)

        def send(event: Event) -> None:
            event = event.stamped(self.name, time.time())
            if isinstance(event, StageStarted) and self.world.is_main:
                run = self.settings.model_dump(mode="json")
                patience = {"patience_s": self.settings.run.patience_s, "note": self._troubles.append}
                sinks.append(MetricsFile(self.folder, self.name, event.step, **patience))
                sinks.append(Wandb(self.settings.tracking, self.folder, self.name, run))
                sinks.extend(self._sinks)
            if isinstance(event, StepLogged):
                rates.append(event.images_per_s)
            for sink in sinks:
                sink(event)

        return emit


def _fingerprint(tensors: list[nn.Parameter]) -> str:
    """Tells weights apart that nobody trains here: another teacher's checkpoint is another run's."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
