"""A sweep from its plan to its report, started or resumed.

FOLDER = run.dir/NAME, on a disk or in object storage
sweep.yaml, base.yaml     the sweep and the run that it varies, as given
teachers/, trials/        runs: source stages, and trials with their trial.json
spent.json                seconds for which the sweep has run
trials.csv                all trials, one a line
best.yaml                 the best configuration, for `python -m fourds_dist.train`
report.html, report/      the page, and its charts
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

from rich.console import Console

from fourds_dist.config.effects import LEARNT, Effect, effect_on
from fourds_dist.config.loading import differing, parsed, to_yaml
from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.base_run import is_run_key, with_word
from fourds_dist.experiments.epochs import epochs_of
from fourds_dist.experiments.executor.open import check_imports
from fourds_dist.experiments.executor.run_tasks import remove_checkpoints
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.experiments.sweep.controller import SweepController
from fourds_dist.experiments.sweep.live_table import LiveTable, ShowTeachers
from fourds_dist.experiments.sweep.plan import SweepPlan, check_trials, make_plan
from fourds_dist.experiments.sweep.report import write_results
from fourds_dist.experiments.sweep.trial_store import FILE, TrialStore
from fourds_dist.io.storage import locate, parent, translate_storage_errors
from fourds_dist.io.terminal import words
from fourds_dist.launch.run import prepare
from fourds_dist.runs.failures import StopReason
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.lease import held
from fourds_dist.runs.run_folder import RunFolder, refuse_memory
from fourds_dist.stages.run_identity import keep_images, same_images
from fourds_dist.stages.settings import Settings

SWEEP, BASE, SPENT = "sweep.yaml", "base.yaml", "spent.json"
WRITE_EVERY_S = 20.0
"""Seconds between two updates of spent.json."""

Trainable = Callable[[dict[str, Any]], None]
"""What Ray Tune executes for each trial, given its configuration."""


def sweep(plan: SweepPlan, *, resume: bool, console: Console) -> StopReason | None:
    """Run or resume a sweep and show its results; returns why the sweep ended before its budget, or None.

    Raises:
        ConfigError: an invalid sweep, or another sweep in its folder; raised before anything starts.
        RuntimeError: no room in the cluster, or Ray Tune failed.
    """
    refuse_memory(plan.url, is_one_process=plan.config.through == "here")
    claim(plan, resume=resume)
    check_imports(plan.config.through)
    with held(plan.url):
        claim(plan, resume=resume)  # again: another driver may have written here meanwhile
        prepare(plan.run)
        check_trials(plan)
        keep(plan)
        return _run_all(plan, console)


def _run_all(plan: SweepPlan, console: Console) -> StopReason | None:
    """Run the rest of a sweep whose folder this driver holds; see `sweep`."""
    folder = RunFolder(plan.url)
    trial_store = TrialStore.read(plan.url, plan.config.mode)
    for trial in trial_store.in_state("waiting", "running"):
        trial_folder = RunFolder(folder.path(f"trials/{trial.name}"))
        trial.history = list(epochs_of(trial_folder, plan.config.network))
    with _joined_cluster(plan):
        reason = run_plan(plan, trial_store, console)
    remove_checkpoints([folder.path(f"trials/{trial.name}") for trial in trial_store.in_state("stopped")])
    write_results(plan, trial_store, console)
    _print_end(plan, trial_store, reason, console)
    return reason


@contextmanager
def _joined_cluster(plan: SweepPlan) -> Iterator[None]:
    """Join or start a cluster with room for a trial, if the sweep needs Ray."""
    if plan.config.through != "ray":
        yield
        return
    from fourds_dist.experiments.sweep import ray_tune  # noqa: F401  (sets the environment of Ray before its start)
    from fourds_dist.launch.ray.cluster import await_workers, cluster

    with cluster(plan.run):
        await_workers(plan.run.launch, wait_s=plan.run.launch.wait_s)
        yield


def read_sweep(url: str, overrides: Sequence[str] = ()) -> SweepPlan:
    """Read the plan in the folder of a sweep, with some keys changed.

    Raises:
        ConfigError: the folder holds no sweep.
    """
    folder = RunFolder(url)
    with translate_storage_errors(url):
        if not folder.exists(SWEEP):
            raise ConfigError(
                f"{url} holds no sweep (there is no {SWEEP}); give run.dir/NAME of one, or a sweep file"
            )
        config = parsed(folder.read_text(SWEEP), folder.path(SWEEP))
        base = parsed(folder.read_text(BASE), folder.path(BASE))
    for word in overrides:
        if is_run_key(word, SweepConfig):
            base = with_word(base, word)
        else:
            config = with_word(config, word)
    lies_in = parent(folder.url)  # the sweep may have been moved
    return make_plan(config.build(SweepConfig), base.changed({"run.dir": lies_in}, "the sweep's place"))


class TrialRunner(Protocol):
    """Runs the trials that the controller gives out, until there are no more."""

    @property
    def capacity(self) -> int:
        """The largest number of trials at once for which there is room."""
        ...

    def run(
        self,
        controller: SweepController,
        show_teachers: ShowTeachers,
        every: Callable[[], None],
        seconds_left: float | None,
    ) -> StopReason | None:
        """Run trials until there are no more; returns why the sweep ended before, if it did.

        Args:
            show_teachers: shows events of source stages.
            every: called about twice a second, or after each epoch where trials run in this process.
            seconds_left: of budget.hours; None: no limit.
        """
        ...


@contextmanager
def _trial_runner(plan: SweepPlan, trainable: Trainable | None) -> Iterator[TrialRunner]:
    if plan.config.through == "ray":
        from fourds_dist.experiments.sweep.ray_tune import TuneTrials

        with closing(TuneTrials(plan, trainable)) as trials:
            yield trials
    else:
        assert trainable is None
        from fourds_dist.experiments.sweep.task_trials import task_trials

        with task_trials(plan) as trials:
            yield trials


def run_plan(
    plan: SweepPlan, trial_store: TrialStore, console: Console, trainable: Trainable | None = None
) -> StopReason | None:
    """Run what is left of a plan; returns why the sweep ended before its budget, if it did.

    For through=ray this process has joined a cluster.

    Args:
        trainable: executed by Ray Tune in place of training, to measure the rest.
    """
    folder, began_s = RunFolder(plan.url), time.monotonic()
    before_s = folder.read_json(SPENT)["seconds"] if folder.exists(SPENT) else 0.0
    hours = plan.config.budget.hours
    with _trial_runner(plan, trainable) as runner:
        max_concurrent_trials = plan.config.max_concurrent_trials or runner.capacity
        with LiveTable(plan, trial_store, console, max_concurrent_trials) as view:
            controller = SweepController(plan, trial_store, max_concurrent_trials, view.tell)
            written_s = [0.0]

            def every() -> None:
                now_s = time.monotonic() - began_s
                view.refresh()
                if now_s - written_s[0] > WRITE_EVERY_S:
                    written_s[0] = now_s
                    folder.write_json(SPENT, {"seconds": round(before_s + now_s, 1)})

            seconds_left = None if hours is None else 3600 * hours - before_s
            try:
                return runner.run(controller, view.teachers, every, seconds_left)
            finally:
                folder.write_json(SPENT, {"seconds": round(before_s + time.monotonic() - began_s, 1)})


def claim(plan: SweepPlan, *, resume: bool) -> None:
    """Refuse to start in the folder of a sweep, or to resume another sweep.

    Raises:
        ConfigError: naming the folder and the keys that differ.
    """
    folder = RunFolder(plan.url)
    with translate_storage_errors(folder.url):
        is_there = folder.exists(SWEEP) and _has_begun(folder)
    if is_there and not resume:
        raise ConfigError(
            f"{folder.url} holds a sweep already; --resume goes on with it (and adds trials, where budget.trials is "
            "raised), or choose another name"
        )
    if not is_there:
        return
    before = read_sweep(folder.url)
    changed = [
        difference
        for key, difference in differing(before.config, plan.config).items()
        if effect_on(SweepConfig, key) in LEARNT
    ]
    for key, difference in differing(before.run, plan.run).items():
        effect = effect_on(Settings, key)
        are_others = effect == Effect.IMAGES and not same_images(
            folder, before.run, plan.run, key.partition(".")[0]
        )
        if effect in LEARNT or are_others:
            changed.append(difference)
    if changed:
        raise ConfigError(
            f"{folder.url} holds another sweep ({'; '.join(changed[:5])}); choose another name, or leave these as they "
            "are. What changes no trial may change: budget, max_concurrent_trials, retries, scheduler, launch, "
            "tracking, data.threads and the like"
        )


def _has_begun(folder: RunFolder) -> bool:
    """Whether the folder holds a trial or a teacher; a sweep that found no room has left neither."""
    fs, path = locate(folder.url)
    fs.invalidate_cache()
    return bool(fs.glob(f"{path}/trials/*/{FILE}") or fs.glob(f"{path}/teachers/*/{RunFile.CONFIG}"))


def keep(plan: SweepPlan) -> None:
    """Write a plan into its folder, and the base run with all changes, so that a resumed sweep needs no other file."""
    folder = RunFolder(plan.url)
    tree = plan.config.model_dump(mode="json", exclude_defaults=True, exclude={"config", "changes"})
    folder.write_text(SWEEP, to_yaml({"name": plan.config.name, **tree}))
    folder.write_text(BASE, to_yaml(plan.base.tree))
    keep_images(folder, plan.run)


def _print_end(plan: SweepPlan, trial_store: TrialStore, reason: StopReason | None, console: Console) -> None:
    left = list(trial_store.in_state("waiting", "running"))
    again = f"python -m fourds_dist.tune --resume {plan.url}"
    if reason and left:
        trials = f"{len(left)} trial{'s' if len(left) > 1 else ''}"
        console.print(words(f"ended by {reason}, {trials} before the end; `{again}` goes on"), soft_wrap=True)
    elif reason:
        console.print(words(f"ended by {reason}; `{again}` goes on"), soft_wrap=True)
