"""Numbers of events by the names that trackers show."""

from __future__ import annotations

from typing import Any

from fourds_dist.runs.events import EpochEnded, Event, Note, StageStopped, StepLogged

VALIDATION_NAMES = {
    "val": "accuracy",
    "val_loss": "loss",
    "val_mean_per_class": "mean_per_class",
    "val_macro_f1": "macro_f1",
}
"""Fields of `Validation` by the prefix of their names."""


def flat_values(event: Event) -> dict[str, Any]:
    """Return the numbers of an event by their names in trackers: `lr/student`, `val/student`, `data_wait_share`.

    The text of a note is under `note`.
    """
    values: dict[str, Any] = {
        name: value for name, value in vars(event).items() if isinstance(value, int | float)
    }
    match event:
        case StepLogged():
            shares = {f"{name}_share": share for name, share in vars(event.shares).items()}
            values |= event.losses | {name: share for name, share in shares.items() if share is not None}
            values |= {f"lr/{name}": rate for name, rate in event.learning_rates.items()}
            values |= event.method_values
        case EpochEnded():
            for prefix, field in VALIDATION_NAMES.items():
                found = {network: getattr(measured, field) for network, measured in event.validation.items()}
                values |= {f"{prefix}/{name}": value for name, value in found.items() if value is not None}
            for name, measured in event.validation.items():
                values |= {f"val_{by}/{name}": value for by, value in measured.criteria.items()}
        case Note() | StageStopped():
            values["note"] = event.text
    return values
