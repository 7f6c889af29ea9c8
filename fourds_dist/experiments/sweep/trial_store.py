"""The trial store: the state of every trial, in `trials/NAME/trial.json`, from which a sweep is resumed.

A trial is one configuration with one seed. Its folder is the folder of a run, with checkpoints and metrics.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from fourds_dist.experiments.sweep.space import Params
from fourds_dist.io.json_text import parse_json
from fourds_dist.io.storage import locate, translate_storage_errors, write_bytes

State = Literal["waiting", "running", "done", "stopped", "failed"]
"""`waiting`: proposed, or left before its end, to be resumed. `stopped`: by the scheduler. `failed`: left out."""

FINAL: tuple[State, ...] = ("done", "stopped", "failed")
FILE = "trial.json"


@dataclass
class Trial:
    """One trial."""

    name: str
    number: int
    """Number of its configuration, from 0."""
    seed: int
    """The run.seed of the trial."""
    params: Params
    """Values of the keys that vary."""
    num_epochs: int
    """Epochs of distillation in all."""
    state: State = "waiting"
    history: list[tuple[int, float]] = field(default_factory=list)
    """(epoch, metric) of every finished epoch."""
    tested: float | None = None
    """Accuracy of the student on the test split of the target; None until the trial is done."""
    failures: list[str] = field(default_factory=list)
    """Failures of the trial, a line each."""

    def best(self, mode: str) -> float | None:
        """The best metric of all epochs so far."""
        values = [value for _, value in self.history]
        return (max(values) if mode == "max" else min(values)) if values else None

    @property
    def epoch(self) -> int:
        """The last finished epoch."""
        return self.history[-1][0] if self.history else 0

    def add(self, epoch: int, value: float) -> None:
        """Add an epoch; an epoch that is trained again after a failure replaces itself and all later ones."""
        self.history = [(e, v) for e, v in self.history if e < epoch] + [(epoch, value)]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Trial:
        """The trial that a file holds; keys of earlier versions are ignored.

        Raises:
            ValueError: naming the key that is missing or whose value is invalid.
        """
        known = {own.name: values[own.name] for own in fields(cls) if own.name in values}
        try:
            return _ADAPTER.validate_python(known)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


_ADAPTER = TypeAdapter(Trial)


@dataclass(frozen=True)
class Configuration:
    """The trials of one configuration, one for each seed."""

    number: int
    trials: tuple[Trial, ...]
    mode: str

    @property
    def params(self) -> Params:
        """Values of the keys that vary."""
        return self.trials[0].params

    @property
    def values(self) -> list[float]:
        """The best metric of each trial that ran to its end; of all trials that did not fail, where none did."""
        done = [t for t in self.trials if t.state == "done"]
        best = [t.best(self.mode) for t in done or self.trials if t.state != "failed"]
        return [value for value in best if value is not None]

    @property
    def mean(self) -> float | None:
        """Mean of the metric over seeds; None without a value."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def tested(self) -> list[float]:
        """Test accuracies of finished trials."""
        return [t.tested for t in self.trials if t.tested is not None]

    @property
    def is_done(self) -> bool:
        """Whether a trial ran to its end."""
        return any(t.state == "done" for t in self.trials)

    @property
    def is_over(self) -> bool:
        """Whether no trial will be resumed."""
        return all(t.state in FINAL for t in self.trials)


class TrialStore:
    """All trials of a sweep by name, in the order of their proposal.

    Args:
        url: path or URL of the folder of the sweep.
        mode: whether higher ("max") or lower ("min") values of the metric are better.
    """

    def __init__(self, url: str, mode: str, trials: Iterable[Trial] = ()) -> None:
        self.url, self.mode = url, mode
        self.trials = {trial.name: trial for trial in trials}

    @classmethod
    def read(cls, url: str, mode: str) -> TrialStore:
        """Read all trials in the folder of a sweep."""
        fs, path = locate(url)
        with translate_storage_errors(url):
            fs.invalidate_cache()
            files = [str(file) for file in fs.glob(f"{path}/trials/*/{FILE}")]
            found = fs.cat(files) if files else {}
        assert isinstance(found, dict)
        trials = [_parse(data, name) for name, data in found.items()]
        return cls(url, mode, sorted(trials, key=lambda t: (t.number, t.seed)))

    def write(self, trial: Trial) -> None:
        """Write the present state of a trial, whole or not at all."""
        self.trials[trial.name] = trial
        text = json.dumps(asdict(trial), indent=1)
        write_bytes(f"{self.url}/trials/{trial.name}/{FILE}", text.encode())

    def configurations(self) -> list[Configuration]:
        """All configurations, by number."""
        groups: dict[int, list[Trial]] = {}
        for trial in list(self.trials.values()):
            groups.setdefault(trial.number, []).append(trial)
        return [Configuration(number, tuple(trials), self.mode) for number, trials in sorted(groups.items())]

    def ranked(self) -> list[Configuration]:
        """Configurations with a value, the best first; those that ran to their end come before the others."""
        sign = -1 if self.mode == "max" else 1
        having = [c for c in self.configurations() if c.mean is not None]
        return sorted(having, key=lambda c: (not c.is_done, sign * (c.mean or 0.0)))

    def in_state(self, *states: State) -> Iterator[Trial]:
        """Trials in any of some states."""
        return (trial for trial in list(self.trials.values()) if trial.state in states)

    @property
    def num_epochs(self) -> int:
        """Finished epochs of all trials together."""
        return sum(trial.epoch for trial in list(self.trials.values()))


def _parse(data: bytes, path: str) -> Trial:
    try:
        trial = Trial.from_dict(parse_json(data))
        if trial.name != (folder := path.split("/")[-2]):
            raise ValueError(f"it holds trial {trial.name!r} in the folder of {folder!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"{path} is no trial of a sweep ({why}); restore it, or remove its folder") from None
    return trial
