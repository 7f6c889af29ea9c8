"""Prometheus metrics of a run: rank 0 sets them, and Ray serves them on the metrics port of the node of rank 0.

The metrics are set from events, at logging steps and epochs only, and hold for all workers together. Prometheus adds
the prefix `ray_` to every name; `cluster/grafana.json` plots the metrics.
"""

from __future__ import annotations

from collections.abc import Callable

from ray.util.metrics import Counter, Gauge

from fourds_dist.runs.events import EpochEnded, Event, Note, StageStarted, StepLogged

TAGS = ("run", "stage")
GAUGES: dict[str, tuple[str, Callable[[StepLogged], float | None]]] = {
    "step": ("Optimiser steps of the stage so far", lambda event: event.step),
    "epoch": ("Passes over the training split so far", lambda event: event.epoch),
    "images_per_s": (
        "Training images per second of all workers together, with data loading, without evaluation",
        lambda event: event.images_per_s,
    ),
    "data_wait_share": (
        "Share of time, from 0 to 1, in which rank 0 waited for data",
        lambda event: event.shares.data_wait,
    ),
    "host_wait_share": (
        "Share of time, from 0 to 1, in which the GPU of rank 0 waited for Python (captured steps only)",
        lambda event: event.shares.host_wait,
    ),
    "host_busy_share": (
        "Share of time, from 0 to 1, in which rank 0 queued work without a CUDA graph; near 1, its GPU waits",
        lambda event: event.shares.host_busy,
    ),
    "network_wait_share": (
        "Share of time, from 0 to 1, in which rank 0 waited for gradients of other workers (GPUs only)",
        lambda event: event.shares.network_wait,
    ),
    "num_bad_samples": (
        "Corrupt images that all workers together have read so far",
        lambda event: event.num_bad_samples,
    ),
}
"""Name -> (description, value of a logging step; None: the step has no value)."""


class PrometheusGauges:
    """Sink that sets the metrics from the events of one stage.

    Args:
        run: name of the run; every metric has the tags run and stage.
    """

    def __init__(self, run: str, stage: str) -> None:
        tags = {"run": run, "stage": stage}

        def gauge(name: str, description: str, *more_tags: str) -> Gauge:
            gauge = Gauge(f"fourds_{name}", description, (*TAGS, *more_tags))
            gauge.set_default_tags(tags)
            return gauge

        self._numbers = {name: gauge(name, description) for name, (description, _) in GAUGES.items()}
        self._num_steps = gauge("num_steps", "Total optimiser steps of the stage")
        self._losses = gauge(
            "loss", "Mean loss since the last logging step, by name; `loss` is their weighted sum", "loss"
        )
        self._accuracies = gauge("val_accuracy", "Accuracy on the validation split, from 0 to 1", "network")
        self._notes = Counter("fourds_notes", "Faults that the run survived, and remarks on its data", TAGS)
        self._notes.set_default_tags(tags)

    def __call__(self, event: Event) -> None:
        """Set the metrics of an event."""
        match event:
            case StageStarted():
                self._numbers["step"].set(event.step)
                self._num_steps.set(event.num_epochs * event.num_steps_per_epoch)
            case StepLogged():
                for name, (_, value_of) in GAUGES.items():
                    if (value := value_of(event)) is not None:
                        self._numbers[name].set(value)
                for name, loss in {"loss": event.loss, **event.losses}.items():
                    self._losses.set(loss, {"loss": name})
            case EpochEnded():
                for network, validation in event.validation.items():
                    if validation.accuracy is not None:
                        self._accuracies.set(validation.accuracy, {"network": network})
            case Note():
                self._notes.inc()
