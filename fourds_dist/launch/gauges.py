"""A run's numbers for Prometheus: rank 0 sets them, and Ray serves them on the metrics port of that worker's node.

They are set at logging steps and epochs alone, from rows that hold for all workers together, so that they cost training
nothing. In Prometheus every name begins with `ray_`; `cluster/grafana.json` draws them.
"""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Counter, Gauge

TAGS = ("run", "stage")
GAUGES = {
    "step": "Steps of the stage that are done",
    "epoch": "Passes over the training split that are done",
    "images_per_s": "Training images per second, all workers together, data included, evaluation left out",
    "data_wait_share": "Share of its time, from 0 to 1, that rank 0 waited for data",
    "host_busy_share": "Share of its time, from 0 to 1, that rank 0 spent in Python; near 1, its GPU waits (GPUs only)",
    "network_wait_share": "Share of a step, from 0 to 1, that waits for the other workers' gradients (GPUs only)",
    "num_bad_samples": "Broken images met so far, all workers together",
}
"""Number of a step's row -> its meaning."""
NO_LOSSES = {*GAUGES, "time"}


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

        self._numbers = {name: gauge(name, meaning) for name, meaning in GAUGES.items()}
        self._num_steps = gauge("num_steps", "Steps of the whole stage")
        self._losses = gauge(
            "loss", "Mean loss since the last logging step, by name; `loss` is their weighted sum", "loss"
        )
        self._accuracies = gauge("val_accuracy", "Accuracy on the validation split, from 0 to 1", "network")
        self._notes = Counter(
            "fourds_notes", "Troubles that the run met and survived, as its log tells them", TAGS
        )
        self._notes.set_default_tags(tags)

    def __call__(self, row: dict[str, Any]) -> None:
        """Set what an event tells."""
        match row["event"]:
            case "start":
                self._numbers["step"].set(row["step"])
                self._num_steps.set(row["num_epochs"] * row["num_steps_per_epoch"])
            case "step":
                for name, gauge in self._numbers.items():
                    if name in row:
                        gauge.set(row[name])
                for name, value in row.items():
                    if isinstance(value, float) and "/" not in name and name not in NO_LOSSES:
                        self._losses.set(value, {"loss": name})
            case "epoch":
                for name, value in row.items():
                    if name.startswith("val/"):
                        self._accuracies.set(value, {"network": name.removeprefix("val/")})
            case "note":
                self._notes.inc()
