"""A run's numbers for Prometheus: rank 0 sets them, and Ray serves them on the metrics port of that worker's node.

They are set at logging steps and epochs alone, from events that hold for all workers together, and cost training
nothing. In Prometheus every name begins with `ray_`; `cluster/grafana.json` draws them.
"""

from __future__ import annotations

from collections.abc import Callable

from ray.util.metrics import Counter, Gauge

from fourds_dist.runs.events import EpochEnded, Event, Note, StageStarted, StepLogged

TAGS = ("run", "stage")
GAUGES: dict[str, tuple[str, Callable[[StepLogged], float | None]]] = {
    "step": ("Steps of the stage that are done", lambda event: event.step),
    "epoch": ("Passes over the training split that are done", lambda event: event.epoch),
    "images_per_s": (
        "Training images per second, all workers together, data included, evaluation left out",
        lambda event: event.images_per_s,
    ),
    "data_wait_share": (
        "Share of its time, from 0 to 1, that rank 0 waited for data",
        lambda event: event.shares.data_wait,
    ),
    "host_busy_share": (
        "Share of its time, from 0 to 1, that rank 0 spent in Python; near 1, its GPU waits (GPUs only)",
        lambda event: event.shares.host_busy,
    ),
    "network_wait_share": (
        "Share of a step, from 0 to 1, that waits for the other workers' gradients (GPUs only)",
        lambda event: event.shares.network_wait,
    ),
    "num_bad_samples": (
        "Broken images met so far, all workers together",
        lambda event: event.num_bad_samples,
    ),
}
"""Name -> its meaning, and the value of a logging step; None where the step has none."""


class Gauges:
    """Takes the events of one stage.

    Args:
        run: name of the run, a tag of every number beside the stage.
    """

    def __init__(self, run: str, stage: str) -> None:
        tags = {"run": run, "stage": stage}

        def gauge(name: str, meaning: str, *more: str) -> Gauge:
            made = Gauge(f"fourds_{name}", meaning, (*TAGS, *more))
            made.set_default_tags(tags)
            return made

        self._numbers = {name: gauge(name, meaning) for name, (meaning, _) in GAUGES.items()}
        self._num_steps = gauge("num_steps", "Steps of the whole stage")
        self._losses = gauge(
            "loss", "Mean loss since the last logging step, by name; `loss` is their weighted sum", "loss"
        )
        self._accuracies = gauge("val_accuracy", "Accuracy on the validation split, from 0 to 1", "network")
        self._notes = Counter(
            "fourds_notes", "Troubles that the run met and survived, as its log tells them", TAGS
        )
        self._notes.set_default_tags(tags)

    def __call__(self, event: Event) -> None:
        """Set what an event tells."""
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
                for network, measured in event.validation.items():
                    self._accuracies.set(measured.accuracy, {"network": network})
            case Note():
                self._notes.inc()
