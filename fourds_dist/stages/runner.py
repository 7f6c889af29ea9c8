"""The runner of a stage on one worker: batches, length, training, evaluation and events, shared by all stages.

The launcher (Ray, torchrun, one process) determines only the `World`, the `CheckpointStore` and the sinks of events.
`stages` defines the stages.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from fourds_dist.config.stage_names import StageName
from fourds_dist.data import (
    Split,
    StreamConfig,
    evaluation_batches,
    open_split,
)
from fourds_dist.data.decode.decoded_cache import DecodedCache
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.io.url import split_pattern
from fourds_dist.method.output import Predictor
from fourds_dist.method.task import Task
from fourds_dist.models.backbones import BackboneConfig
from fourds_dist.models.weights.metadata import NetworkMetadata
from fourds_dist.models.weights.networks import metadata
from fourds_dist.runs.accuracy import LABEL_FREE, MEASURE_NAMES, Accuracy, Measure
from fourds_dist.runs.events import Event, Note, Sink, StageEnded, StageStarted, StepLogged
from fourds_dist.runs.run_folder import MetricsFile, RunFolder
from fourds_dist.stages.grey_ranges import grey_ranges_of
from fourds_dist.stages.label_free import evaluate_label_free
from fourds_dist.stages.network_inputs import conversions, network_inputs
from fourds_dist.stages.settings import Settings, stage_config
from fourds_dist.stages.sinks.trackers import trackers
from fourds_dist.stages.target_labels import computes_criteria, criterion, has_labels, source_fraction
from fourds_dist.stages.train_streams import class_weights_of, train_splits, train_stream
from fourds_dist.stages.trial_step import freeze_unreached
from fourds_dist.training.checkpoint.checkpoint_store import CheckpointStore
from fourds_dist.training.criteria import StatisticsCollector
from fourds_dist.training.distributed.world import World
from fourds_dist.training.evaluate import ImagesOfBatch, evaluate
from fourds_dist.training.loop import LoopHooks, device_name, fit
from fourds_dist.training.step import TrainStep
from fourds_dist.training.stop_signals import StopSignal
from fourds_dist.training.strategies.build import make_strategy
from fourds_dist.training.train_state import Best


class StageRunner:
    """Training, evaluation and metadata of one stage on this worker, from the configuration."""

    def __init__(
        self,
        name: StageName,
        settings: Settings,
        world: World,
        folder: RunFolder,
        make_store: Callable[[Callable[[str], None]], CheckpointStore],
        sinks: tuple[Sink, ...],
        stop: StopSignal,
        restart_notes: Callable[[], list[str]],
    ) -> None:
        self.name: StageName = name
        self.settings, self.world, self.folder = settings, world, folder
        self._sinks, self._stop, self._restart_notes = sinks, stop, restart_notes
        self.inputs, self.conversions = network_inputs(settings), conversions(settings)
        self._budget = settings.data.budget()
        self._decoded_caches: dict[str, DecodedCache] = {}
        self._storage_notes: list[str] = []
        self._start_notes: list[str] = []
        self._store = make_store(self._storage_notes.append)
        self._has_started = False

    def notify(self, text: str) -> None:
        """Add a line about the inputs of the stage, logged once, at the stage's first start."""
        if text not in self._start_notes:
            self._start_notes.append(text)

    def split(self, domain: StreamConfig, split: Literal["train", "val", "test"]) -> Split:
        """Return a split of `settings.source` or `settings.target`."""
        return open_split(domain, split, seed=self.settings.run.seed)

    def fit(
        self,
        task: Task,
        monitored: str,
        domain: StreamConfig,
        *,
        reference: tuple[str, Predictor] | None = None,
    ) -> tuple[Best, TrainStep, list[float]]:
        """Train on the domain and select the best epoch on its validation split.

        The task is unwrapped afterwards, on this worker's device.

        Args:
            reference: name of the network with which the others are compared for `agreement`, and the network, which
                is evaluated too where criteria are computed; None: the stage computes no criteria.

        Returns:
            The best epoch, the training step, and the images/s of every logging interval.
        """
        settings, world = self.settings, self.world
        config, data = stage_config(self.name, settings), settings.data
        self._has_started = self.has_checkpoint()
        splits = train_splits(self.name, settings)
        stream = train_stream(self.name, settings, splits, world.rank, world.size, self._budget, world.device)
        identity = {
            "networks": f"{settings.teacher.arch} -> "
            + ", ".join(student.arch for student in settings.named_students.values()),
            "data": "+".join(s.fingerprint for s in splits.values()),
            "frozen weights": fingerprint_of([p for p in task.parameters() if not p.requires_grad]),
        }
        if domain.class_weights == "balanced":
            task.class_weights = class_weights_of(splits, source_fraction(settings))
        freeze_unreached(task, num_images=2, side_px=data.crop_px, notify=self.notify)
        by = criterion(self.name, settings)
        self._report_labels(domain, by)
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
        if not world.is_main:  # with the same seed, dropout masks would be equal on all ranks
            torch.manual_seed(
                int(np.random.SeedSequence((settings.run.seed, world.rank)).generate_state(1)[0])
            )
        rates: list[float] = []
        in_step_px = data.crop_px if strategy.in_step else None
        has_criteria = computes_criteria(self.name, settings)  # reads manifests

        def validate() -> dict[str, Accuracy]:
            if reference is None or not has_criteria:
                return self.evaluate(task.predictors(), domain, "val", step, in_step_px=in_step_px)
            predictors = task.predictors() | dict([reference])
            return evaluate_label_free(
                self, predictors, "val", step, reference=reference[0], in_step_px=in_step_px
            )[0]

        best = fit(
            task,
            step,
            strategy,
            stream,
            validate,
            LoopHooks(
                self._store, self._emitter(rates), self._stop, self.folder.write_json, self._all_restart_notes
            ),
            config=config,
            monitored=monitored,
            identity=identity,
            world=world,
            log_every_steps=settings.step.log_every_steps,
            max_nonfinite_steps=settings.step.max_nonfinite_steps,
            select_by=by,
            uses_labels=has_labels(domain, "val"),
        )
        return best, step, rates

    def has_checkpoint(self) -> bool:
        """Return whether the stage resumes from a checkpoint; a collective call."""
        newest = self._store.newest() if self.world.is_main else None
        return self.world.gather(newest is not None)[0]

    def end_without_training(self) -> None:
        """Report the start, the notes and the end of a stage without steps."""
        emit, world = self._emitter([]), self.world
        config = stage_config(self.name, self.settings)
        emit(
            StageStarted(
                step=0,
                num_epochs=0,
                num_steps_per_epoch=0,
                global_batch_size=config.global_batch_size,
                num_workers=world.size,
                device=device_name(world),
            )
        )
        for text in self._all_restart_notes() if world.is_main else []:
            emit(Note(step=0, text=text))
        emit(StageEnded(step=0))
        self._store.close()

    def evaluate(
        self,
        predictors: Mapping[str, Predictor],
        domain: StreamConfig,
        split: Literal["val", "test"],
        step: ImagesOfBatch,
        *,
        in_step_px: int | None = None,
        collector: StatisticsCollector | None = None,
    ) -> dict[str, Accuracy]:
        """Return the accuracies on one split, over all workers; `collector` receives the logits."""
        images = self.split(domain, split)
        decoded_cache = self._decoded_caches.setdefault(images.fingerprint, DecodedCache(self._budget))
        batches = evaluation_batches(
            images,
            self.settings.data,
            batch_size_per_rank=self.settings.step.eval_batch_size_per_rank,
            rank=self.world.rank,
            world_size=self.world.size,
            decoded_cache=decoded_cache,
        )
        num_classes = len(images.classes)
        return evaluate(
            predictors,
            batches,
            step,
            self.world,
            num_classes=num_classes,
            in_step_px=in_step_px,
            collector=collector,
        )

    def needs(self, network: BackboneConfig, classes: tuple[str, ...]) -> NetworkMetadata:
        """Return the metadata that the run requires of a network, for comparison with files of weights."""
        return NetworkMetadata.of_run(
            self.settings.data,
            network,
            classes,
            has_source=self.settings.source.url is not None,
            grey_ranges=grey_ranges_of(self.settings),
        )

    def about(self, network: BackboneConfig, classes: tuple[str, ...], **more: Any) -> dict[str, str]:
        """Return the metadata for a file of weights: network, classes and preprocessing."""
        domain = self.settings.source if self.name == "source" else self.settings.target
        grey_range, own = self.split(domain, "train").grey_range, network.network_input(self.settings.data)
        preprocessing = Preprocessing.of(self.settings.data, grey_range, own)
        return metadata(network, classes, preprocessing=preprocessing.to_json(), **more)

    def _report_labels(self, domain: StreamConfig, by: Measure) -> None:
        """Report what follows from labels that are missing or not used."""
        if not has_labels(domain, "val"):
            why = "are not used" if domain.validation_labels == "ignore" else "are missing"
            self.notify(
                f"{domain.url}: the labels of its 'val' split {why}; the best epoch is selected by {MEASURE_NAMES[by]} "
                "(run.select_by)"
            )
        elif by not in LABEL_FREE:
            self._report_absent_classes(domain, "val")
        fraction = source_fraction(self.settings) if self.name != "source" else 0.0
        if fraction and self.settings.data.source_fraction is None:
            self.notify(
                f"data.source_fraction={fraction:g}: no training label of the target is used, so {fraction:.0%} of "
                "every batch are labelled source images; give data.source_fraction for another share"
            )

    def _report_absent_classes(self, domain: StreamConfig, split: Literal["val", "test"]) -> None:
        """Report the classes without labelled images in a split."""
        assert domain.url is not None
        manifest = read_manifest(split_pattern(domain.url)[0])
        counts = manifest.class_counts[split]
        absent = [name for name, count in zip(manifest.classes, counts, strict=True) if not count]
        if absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            self.notify(
                f"{domain.url}: its {split!r} split has no labelled image of {len(absent)} of {len(counts)} classes "
                f"({', '.join(absent[:5])}{more}); accuracy and mean over classes there exclude these classes"
            )

    def _all_restart_notes(self) -> list[str]:
        """Return the notes since the last start of the run, and at the first start of the stage its start notes."""
        return [*self._restart_notes(), *([] if self._has_started else self._start_notes)]

    def _emitter(self, rates: list[float]) -> Sink:
        """Return a sink that forwards events to all sinks on rank 0; the first event opens the files at its step."""
        sinks: list[Sink] = []

        def emit(event: Event) -> None:
            while self._storage_notes and not isinstance(event, StageStarted):
                # The thread that writes checkpoints adds these notes.
                send(Note(step=event.step, text=self._storage_notes.pop(0)))
            send(event)

        def send(event: Event) -> None:
            event = event.stamped(self.name, time.time())
            if isinstance(event, StageStarted) and self.world.is_main:
                run = self.settings.model_dump(mode="json")
                options = {
                    "retry_timeout_s": self.settings.run.retry_timeout_s,
                    "note": self._storage_notes.append,
                }
                sinks.append(MetricsFile(self.folder, self.name, event.step, **options))
                sinks.extend(trackers(self.settings.tracking, self.folder, self.name, run))
                sinks.extend(self._sinks)
            if isinstance(event, StepLogged):
                rates.append(event.images_per_s)
            for sink in sinks:
                sink(event)

        return emit


def fingerprint_of(tensors: list[nn.Parameter]) -> str:
    """Return a checksum of frozen weights, which identifies the teacher of a checkpoint."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
