"""The methods that advice chooses among, and what our own comparisons say of them beforehand.

`PRIORS` are differences of test accuracy from preset `4ds` in points, as mean and standard deviation over data sets,
from the tables in configs/README.md. They decide where short runs cannot, and lose weight as runs become longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fourds_dist.stages.settings import Settings


class Regime(StrEnum):
    """Which labels of the target are given."""

    NONE = "none"
    FEW = "few"
    ALL = "all"


@dataclass(frozen=True)
class Prior:
    """A difference of accuracies in points, before any run: mean and standard deviation."""

    points: float
    sd: float


UNKNOWN = Prior(-2.0, 6.0)
"""Of a method without a table."""


@dataclass(frozen=True)
class Candidate:
    """A method with its keys.

    Args:
        changes: dotted keys of the run.
        prior: its accuracy minus that of preset `4ds`.
        of: the candidate whose settings this one varies; None: a method.
    """

    name: str
    changes: Mapping[str, Any]
    prior: Prior = UNKNOWN
    of: str | None = None

    @property
    def title(self) -> str:
        """The name in texts."""
        return self.name.replace("_", " ")


_ADAPT = {"method.preset": "distillation", "method.teacher_batch_norm": "adapt"}
METHODS: dict[str, dict[str, Any]] = {
    "4ds": {"method.preset": "4ds"},
    "cross_entropy": {"method.preset": "cross_entropy"},
    "distillation": _ADAPT,
    "fine_tune_then_distil": {"method.preset": "distillation", "adapt.method": "fine_tune"},
    "mcc_then_distil": {**_ADAPT, "adapt.method": "mcc"},
    "adabn": {"method.preset": "adabn", "data.source_fraction": 0.0, "distill_stage.optim.weight_decay": 0.0},
}
"""Name -> keys; the names and keys of configs/compare."""

PRIORS: dict[tuple[Regime, bool], dict[str, Prior]] = {
    (Regime.NONE, True): {
        "4ds": Prior(0.0, 0.0),
        "mcc_then_distil": Prior(-2.0, 3.0),
        "distillation": Prior(-7.0, 5.0),
        "adabn": Prior(-8.0, 5.0),
    },
    (Regime.NONE, False): {
        "4ds": Prior(0.0, 0.0),
        "mcc_then_distil": Prior(-2.0, 4.0),
        "distillation": Prior(-5.0, 5.0),
    },
    (Regime.FEW, True): {
        "4ds": Prior(0.0, 0.0),
        "mcc_then_distil": Prior(-3.0, 6.0),
        "fine_tune_then_distil": Prior(-3.0, 4.0),
        "cross_entropy": Prior(-5.0, 4.0),
        "distillation": Prior(-7.0, 6.0),
    },
    (Regime.FEW, False): {
        "4ds": Prior(0.0, 0.0),
        "fine_tune_then_distil": Prior(0.0, 2.0),
        "mcc_then_distil": Prior(0.0, 4.0),
        "distillation": Prior(-4.0, 3.0),
        "cross_entropy": Prior(-10.0, 8.0),
    },
    (Regime.ALL, True): {
        "4ds": Prior(0.0, 0.0),
        "cross_entropy": Prior(-0.3, 1.5),
        "fine_tune_then_distil": Prior(-0.8, 1.5),
        "distillation": Prior(-10.0, 8.0),
    },
    (Regime.ALL, False): {
        "4ds": Prior(0.0, 0.0),
        "fine_tune_then_distil": Prior(1.2, 2.0),
        "cross_entropy": Prior(-5.0, 6.0),
        "distillation": Prior(-9.0, 6.0),
    },
}
"""(labels, whether the student knows the classes before) -> method -> prior; the order is that of the table."""


def candidates(
    regime: Regime, *, knows_classes: bool, methods: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Candidate]:
    """Return the methods to run.

    Args:
        knows_classes: the student starts from weights of the source's classes.
        methods: name -> keys in place of this package's choice.
    """
    priors = PRIORS[regime, knows_classes]
    chosen = methods or {name: METHODS[name] for name in priors}
    # Untrained students learn with equally scaled losses, as in the comparisons.
    first: dict[str, Any] = {} if knows_classes else {"method.normalise_kd": "untrained"}
    return [
        Candidate(name, {**first, **changes}, priors.get(name, UNKNOWN)) for name, changes in chosen.items()
    ]


def variants(best: Candidate, settings: Settings) -> list[Candidate]:
    """Return a method with other values of its two or three most telling keys.

    Args:
        settings: the run of `best`.
    """
    rate = settings.distill_stage.optim.lr
    found: dict[str, dict[str, Any]] = {
        f"lr {factor:g} times": {"distill_stage.optim.lr": float(f"{rate * factor:.3g}")}
        for factor in (0.3, 3.0)
    }
    if settings.adapt.method != "none":
        found["teacher's lr 0.3 times"] = {
            "adapt_stage.optim.lr": float(f"{settings.adapt_stage.optim.lr * 0.3:.3g}")
        }
    elif settings.method.adapters:
        found["all images weigh alike"] = {"method.kd_sample_weight": "uniform"}
    elif settings.method.kd_weight > 0:
        found["temperature 2"] = {"method.temperature": 2.0}
    return [
        Candidate(f"{best.name}, {what}", {**best.changes, **changes}, of=best.name)
        for what, changes in found.items()
    ]
