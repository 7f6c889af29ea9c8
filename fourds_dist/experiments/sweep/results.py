"""Results of a sweep: the importance of each key, the best configuration, a table of all trials."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from fourds_dist.config.loading import dump
from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.search import as_optuna
from fourds_dist.experiments.sweep.trial_store import Configuration, TrialStore

FEWEST = 4
"""Configurations that an estimate of importance needs at least."""


def importance(plan: SweepPlan, configurations: Sequence[Configuration]) -> dict[str, float]:
    """Key -> share of the variance of the metric that the key explains, by fANOVA (Hutter et al. 2014), sorted.

    A key with conditions is rated among the configurations that have the key. Empty with too few configurations.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[str, float] = {}
    for key in plan.space.parameters:
        having = [c for c in configurations if c.mean is not None and key in c.params]
        keys = [k for k in plan.space.parameters if all(k in c.params for c in having)]
        means = {c.mean for c in having}
        if len(having) < FEWEST or len(means) < 2 or len({repr(c.params[key]) for c in having}) < 2:
            continue
        study = optuna.create_study(direction="maximize" if plan.config.mode == "max" else "minimize")
        study.add_trials([as_optuna(plan, c) for c in having])
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), params=keys)
        found[key] = shares[key]
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def best_yaml(plan: SweepPlan, best: Configuration) -> str:
    """The best configuration as a file for `python -m fourds_dist.train`, with the seed of its best trial."""
    trials = [t for t in best.trials if t.best(best.mode) is not None]
    sign = 1 if best.mode == "max" else -1
    first = max(trials, key=lambda t: (t.state == "done", sign * (t.best(best.mode) or 0.0)))
    settings = plan.settings(best.params, seed=first.seed)
    settings = settings.model_copy(
        update={"run": settings.run.model_copy(update={"name": f"{plan.config.name}-best"})}
    )
    head = [
        f"# The best of sweep {plan.config.name}: configuration {best.number:04d}, {plan.config.metric} "
        f"{first.best(best.mode):.4f} with this seed.",
        "#   python -m fourds_dist.train best.yaml",
    ]
    return "\n".join(head) + "\n" + dump(settings)


def as_csv(plan: SweepPlan, trial_store: TrialStore) -> str:
    """All trials, one a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = list(plan.space.parameters)
    writer.writerow(["trial", "seed", "state", "epoch", plan.config.metric, "test", *keys, "failures"])
    for trial in trial_store.trials.values():
        values = (trial.params.get(key, "") for key in keys)
        known = (trial.name, trial.seed, trial.state, trial.epoch, trial.best(trial_store.mode), trial.tested)
        writer.writerow([*("" if v is None else v for v in known), *values, "; ".join(trial.failures)])
    return out.getvalue()
