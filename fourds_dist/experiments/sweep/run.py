"""A sweep from its plan to its report: begun, or gone on with.

FOLDER = run.dir/NAME, on a disk or in object storage
sweep.yaml, base.yaml     the sweep, and the run that it varies, as given
teachers/, trials/        runs: the source stages, and every trial with its trial.json
spent.json                hours of the clock so far
trials.csv                every trial in a line
best.yaml                 the best configuration, for `python -m fourds_dist.train`
report.html, report/      the page, and its charts
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from fourds_dist.config.effects import LEARNT, Effect, effect_on
from fourds_dist.config.loading import differing, parsed, to_yaml
from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.experiments.sweep.controller import SweepController
from fourds_dist.experiments.sweep.live_table import LiveTable
from fourds_dist.experiments.sweep.plan import SweepPlan, check_trials, make_plan, with_overrides
from fourds_dist.experiments.sweep.ray_tune import Trainable, room, run_trials, tune
from fourds_dist.experiments.sweep.report import write_results
from fourds_dist.experiments.sweep.teacher_pool import TeacherPool
from fourds_dist.experiments.sweep.trial import epochs_of, run_trial
from fourds_dist.experiments.sweep.trial_store import FILE, TrialStore
from fourds_dist.io.storage import locate, parent, translate_storage_errors
from fourds_dist.io.terminal import words
from fourds_dist.launch.ray.cluster import await_workers, cluster, ray
from fourds_dist.launch.run import prepare
from fourds_dist.runs.failures import StopReason
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.lease import held
from fourds_dist.runs.run_folder import RunFolder, refuse_memory
from fourds_dist.stages.run_identity import keep_images, same_images
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import drop_checkpoints

SWEEP, BASE, SPENT = "sweep.yaml", "base.yaml", "spent.json"
KEEP_EVERY_S = 20.0


def sweep(plan: SweepPlan, *, resume: bool, console: Console) -> StopReason | None:
    """Run a sweep, or go on with it, and show what it found; gives why it ended before its budget, if it did.

    Raises:
        ConfigError: a sweep that cannot work, or another one in its folder; found before anything starts.
        RuntimeError: no room in the cluster, or Ray Tune failed.
    """
    refuse_memory(plan.url, is_one_process=False)
    claim(plan, resume=resume)
    with held(plan.url):
        claim(plan, resume=resume)  # again: another driver may have been here meanwhile
        prepare(plan.run)
        check_trials(plan)
        keep(plan)
        return _run_all(plan, console)


def _run_all(plan: SweepPlan, console: Console) -> StopReason | None:
    """Run what is left of a sweep whose folder is ours; see `sweep`."""
    folder = RunFolder(plan.url)
    trial_store = TrialStore.read(plan.url, plan.config.mode)
    for trial in trial_store.in_state("waiting", "running"):
        trial_folder = RunFolder(folder.path(f"trials/{trial.name}"))
        trial.history = list(epochs_of(trial_folder, plan.config.network))
    with cluster(plan.run):
        launch = plan.run.launch
        await_workers(launch, wait_s=launch.wait_s)
        reason = run_plan(plan, trial_store, console)
    for trial in trial_store.in_state("stopped"):
        drop_checkpoints(RunFolder(folder.path(f"trials/{trial.name}")))
    write_results(plan, trial_store, console)
    _tell_end(plan, trial_store, reason, console)
    return reason


def read_sweep(url: str, overrides: Sequence[str] = ()) -> SweepPlan:
    """The plan of a sweep that is there, with some keys changed.

    Raises:
        ConfigError: no sweep there.
    """
    folder = RunFolder(url)
    with translate_storage_errors(url):
        if not folder.exists(SWEEP):
            raise ConfigError(
                f"{url} holds no sweep (there is no {SWEEP}); give run.dir/NAME of one, or a sweep file"
            )
        config = parsed(folder.read_text(SWEEP), folder.path(SWEEP))
        base = parsed(folder.read_text(BASE), folder.path(BASE))
    config, base = with_overrides(config, base, overrides)
    lies_in = parent(folder.url)  # now, should the sweep have been moved
    return make_plan(config.build(SweepConfig), base.changed({"run.dir": lies_in}, "the sweep's place"))


def run_plan(
    plan: SweepPlan, trial_store: TrialStore, console: Console, trainable: Trainable | None = None
) -> StopReason | None:
    """Run what is left of a plan in the cluster that this process has joined; gives why it ended before its budget.

    Args:
        trainable: in place of training, to measure the rest.
    """
    here = ray.get_runtime_context().get_node_id()
    actor: Any = TeacherPool
    shared: Any = actor.options(label_selector={"ray.io/node-id": here}).remote()
    folder, began_s = RunFolder(plan.url), time.monotonic()
    before_s = folder.read_json(SPENT)["seconds"] if folder.exists(SPENT) else 0.0
    max_concurrent_trials = plan.config.max_concurrent_trials or room(plan)
    hours = plan.config.budget.hours
    with LiveTable(plan, trial_store, console, max_concurrent_trials) as view:
        controller = SweepController(plan, trial_store, max_concurrent_trials, view.tell)
        kept_s = [0.0]

        def every() -> None:
            now_s = time.monotonic() - began_s
            view.teachers(ray.get(shared.take_events.remote()))
            view.refresh()
            if now_s - kept_s[0] > KEEP_EVERY_S:
                kept_s[0] = now_s
                folder.write_json(SPENT, {"seconds": round(before_s + now_s, 1)})

        try:
            return run_trials(
                controller,
                trainable or tune.with_parameters(run_trial, plan=plan, shared=shared),
                end=lambda reason: shared.end.remote(reason),
                every=every,
                seconds_left=None if hours is None else 3600 * hours - before_s,
                grace_s=plan.run.launch.grace_s,
            )
        finally:
            folder.write_json(SPENT, {"seconds": round(before_s + time.monotonic() - began_s, 1)})
            ray.kill(shared)


def claim(plan: SweepPlan, *, resume: bool) -> None:
    """Refuse to begin where a sweep is, or to go on with another one.

    Raises:
        ConfigError: telling which, and in what they differ.
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
    """Whether a trial or a teacher of the sweep is there; a sweep that found no room has left neither."""
    fs, path = locate(folder.url)
    fs.invalidate_cache()
    return bool(fs.glob(f"{path}/trials/*/{FILE}") or fs.glob(f"{path}/teachers/*/{RunFile.CONFIG}"))


def keep(plan: SweepPlan) -> None:
    """Write a plan into its folder; the run that it varies with all changes, so that no other file is needed."""
    folder = RunFolder(plan.url)
    tree = plan.config.model_dump(mode="json", exclude_defaults=True, exclude={"config", "changes"})
    folder.write_text(SWEEP, to_yaml({"name": plan.config.name, **tree}))
    folder.write_text(BASE, to_yaml(plan.base.tree))
    keep_images(folder, plan.run)


def _tell_end(plan: SweepPlan, trial_store: TrialStore, reason: StopReason | None, console: Console) -> None:
    left = list(trial_store.in_state("waiting", "running"))
    again = f"python -m fourds_dist.tune --resume {plan.url}"
    if reason and left:
        trials = f"{len(left)} trial{'s' if len(left) > 1 else ''}"
        console.print(words(f"ended by {reason}, {trials} before the end; `{again}` goes on"), soft_wrap=True)
    elif reason:
        console.print(words(f"ended by {reason}; `{again}` goes on"), soft_wrap=True)
