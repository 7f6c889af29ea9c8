"""What is known of every trial, in a file of its own: `trials/NAME/trial.json`. From these a sweep goes on.

A trial is one configuration with one seed; its folder is that of a run, with its checkpoints and metrics besides.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from fourds_dist.experiments.sweep.space import Params
from fourds_dist.io.json_text import parse_json
from fourds_dist.io.storage import locate, translate_storage_errors, write_bytes

State = Literal["waiting", "running", "done", "stopped", "failed"]
"""`waiting`: proposed, or left before its end, and will go on. `stopped`: by the scheduler. `failed`: left out."""

FINAL: tuple[State, ...] = ("done", "stopped", "failed")
FILE = "trial.json"


@dataclass
class Trial:
    """One trial."""

    name: str
    number: int
    """Of its configuration, from 0."""
    seed: int
    """Its run.seed."""
    params: Params
    """What it varies."""
    num_epochs: int
    """Epochs of distillation that it has in all."""
    state: State = "waiting"
    history: list[tuple[int, float]] = field(default_factory=list)
    """(epoch, metric) of every epoch that ended."""
    tested: float | None = None
    """Accuracy of its student on the target's test split, once it is done."""
    failures: list[str] = field(default_factory=list)
    """What befell it, in a line each."""

    def best(self, mode: str) -> float | None:
        """The best metric of its epochs so far."""
        values = [value for _, value in self.history]
        return (max(values) if mode == "max" else min(values)) if values else None

    @property
    def epoch(self) -> int:
        """The last epoch that ended."""
        return self.history[-1][0] if self.history else 0

    def add(self, epoch: int, value: float) -> None:
        """Note an epoch's end; one that is done again, after a failure, replaces what was known of it."""
        self.history = [(e, v) for e, v in self.history if e < epoch] + [(epoch, value)]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Trial:
        """What the file holds; keys of earlier versions are left aside."""
        known = {own.name: values[own.name] for own in fields(cls) if own.name in values}
        return cls(**{**known, "history": [(int(e), float(v)) for e, v in values["history"]]})


@dataclass(frozen=True)
class Configuration:
    """The trials of one configuration, one a seed."""

    number: int
    trials: tuple[Trial, ...]
    mode: str

    @property
    def params(self) -> Params:
        """What it varies."""
        return self.trials[0].params

    @property
    def values(self) -> list[float]:
        """The best metric of each trial that counts: of those that ran to the end, if any did, else of all."""
        done = [t for t in self.trials if t.state == "done"]
        best = [t.best(self.mode) for t in done or self.trials if t.state != "failed"]
        return [value for value in best if value is not None]

    @property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def tested(self) -> list[float]:
        """Test accuracies of the trials that are done."""
        return [t.tested for t in self.trials if t.tested is not None]

    @property
    def is_done(self) -> bool:
        """Whether a trial of it ran to the end."""
        return any(t.state == "done" for t in self.trials)

    @property
    def is_over(self) -> bool:
        """Whether none of its trials will go on."""
        return all(t.state in FINAL for t in self.trials)


class TrialStore:
    """All trials of a sweep, by name in the order of their proposal.

    Args:
        url: the sweep's folder, a path or URL.
        mode: whether more ("max") or less ("min") of the metric is better.
    """

    def __init__(self, url: str, mode: str, trials: Iterable[Trial] = ()) -> None:
        self.url, self.mode = url, mode
        self.trials = {trial.name: trial for trial in trials}

    @classmethod
    def read(cls, url: str, mode: str) -> TrialStore:
        """What the folder holds."""
        fs, path = locate(url)
        with translate_storage_errors(url):
            fs.invalidate_cache()
            files = [str(file) for file in fs.glob(f"{path}/trials/*/{FILE}")]
            found = fs.cat(files) if files else {}
        assert isinstance(found, dict)
        trials = [_trial(data, name) for name, data in found.items()]
        return cls(url, mode, sorted(trials, key=lambda t: (t.number, t.seed)))

    def write(self, trial: Trial) -> None:
        """Keep a trial as it is now, whole or not at all."""
        self.trials[trial.name] = trial
        text = json.dumps(asdict(trial), indent=1)
        write_bytes(f"{self.url}/trials/{trial.name}/{FILE}", text.encode())

    def configurations(self) -> list[Configuration]:
        """By number."""
        groups: dict[int, list[Trial]] = {}
        for trial in list(self.trials.values()):
            groups.setdefault(trial.number, []).append(trial)
        return [Configuration(number, tuple(trials), self.mode) for number, trials in sorted(groups.items())]

    def ranked(self) -> list[Configuration]:
        """The best first; those that ran to the end before those that did not, and only what has a value."""
        sign = -1 if self.mode == "max" else 1
        having = [c for c in self.configurations() if c.mean is not None]
        return sorted(having, key=lambda c: (not c.is_done, sign * (c.mean or 0.0)))

    def in_state(self, *states: State) -> Iterator[Trial]:
        """Trials in one of some states."""
        return (trial for trial in list(self.trials.values()) if trial.state in states)

    @property
    def num_epochs(self) -> int:
        """Epochs of all trials together, as far as they came."""
        return sum(trial.epoch for trial in list(self.trials.values()))


def _trial(data: bytes, where: str) -> Trial:
    try:
        return Trial.from_dict(parse_json(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(
            f"{where} is no trial of a sweep ({why}); restore it, or remove its folder"
        ) from None
