"""Charts of a sweep: Optuna's charts of a study whose trials are the configurations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import optuna
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState, create_trial
from optuna.visualization import matplotlib as optuna_charts

from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.search import as_optuna
from fourds_dist.experiments.sweep.trial_store import Configuration, TrialStore
from fourds_dist.reports.charts import STYLE, Chart, finished
from fourds_dist.runs.accuracy import NOT_SHARES, measure_text

WIDTH_IN, WIDTH_OF_KEY_IN, HEIGHT_IN = 6.4, 1.9, 4.8


def progress(plan: SweepPlan, trial_store: TrialStore) -> list[Chart]:
    """The metric of every configuration with the best so far, and the metric of every trial over epochs."""
    metric, configurations = plan.config.metric, trial_store.configurations()
    having = [c for c in configurations if c.mean is not None]
    trials = [t for t in trial_store.trials.values() if t.history]
    curves = optuna.create_study()
    curves.add_trials(
        create_trial(state=TrialState.PRUNED, intermediate_values=dict(t.history)) for t in trials
    )
    with _optuna_style():
        axes = optuna_charts.plot_optimization_history(_study(plan, configurations), target_name=metric)
        _mark_stopped(axes, [c.number for c in having], having)
        axes.legend()
        _count_over(axes, "configuration", plan)
        best = (max if plan.config.mode == "max" else min)(c.mean or 0.0 for c in having)
        words = f"{metric} of {len(having)} configurations; best {measure_text(plan.measure, best)}"
        history = _chart(axes, "history", "What was tried", words)

        axes = optuna_charts.plot_intermediate_values(curves)
        _count_over(axes, "epoch", plan)
        for line in axes.lines:
            line.set_color("tab:blue")
        if (numbers := axes.get_legend()) is not None:
            numbers.remove()
        words = f"{len(trials)} trials, {sum(t.state == 'done' for t in trials)} to the end"
        return [history, _chart(axes, "learning_curves", "Epoch by epoch", words)]


def importance(shares: Mapping[str, float]) -> Chart:
    """The share of the variance of the metric that each key explains."""
    with _optuna_style(), plt.style.context("ggplot"):
        axes = plt.subplots(figsize=(WIDTH_IN, 1 + 0.4 * len(shares)), layout="tight")[1]
        axes.bar_label(axes.barh(list(shares), list(shares.values())), fmt="{:.0%}", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("share of the variance explained")
        listed = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        return _chart(axes, "importance", "What matters", f"Importance: {listed}")


def parallel(plan: SweepPlan, configurations: Sequence[Configuration]) -> Chart | None:
    """Parallel coordinates of the metric and the keys that vary; None where no key varies."""
    having = [c for c in configurations if c.mean is not None]
    known = {key for c in having for key in c.params}
    keys = [k for k in plan.space.parameters if k in known and _num_values(k, having) > 1]
    if not keys:
        return None
    width = max(WIDTH_IN, WIDTH_OF_KEY_IN * (len(keys) + 2))
    with _optuna_style({"figure.figsize": (width, HEIGHT_IN)}):
        study = _study(plan, configurations)
        axes = optuna_charts.plot_parallel_coordinate(study, keys, target_name=plan.config.metric)
        _format_metric(axes, plan)
        words = f"{len(having)} configurations over {', '.join(keys)}"
        return _chart(axes, "parallel", "All together", words)


def response(plan: SweepPlan, configurations: Sequence[Configuration], key: str) -> Chart | None:
    """The metric over the values of one key; None where fewer than two values were tried."""
    having = [c for c in configurations if c.mean is not None and key in c.params]
    if _num_values(key, having) < 2:
        return None
    with _optuna_style():
        axes = optuna_charts.plot_slice(_study(plan, configurations), [key], target_name=plan.config.metric)
        assert isinstance(axes, Axes)
        values = [plan.space.as_optuna(c.params)[key] for c in having]
        if marks := _mark_stopped(axes, [repr(v) if isinstance(v, str) else v for v in values], having):
            axes.legend(handles=[marks])
        _format_metric(axes, plan)
        axes.figure.axes[-1].set_ylabel("configuration")
        words = f"{plan.config.metric} over {key}, {len(having)} configurations"
        return _chart(axes, f"response-{key}", key, words)


def _num_values(key: str, configurations: Sequence[Configuration]) -> int:
    """Number of different values of a key; its absence counts as a value."""
    return len({repr(c.params[key]) if key in c.params else None for c in configurations})


def _study(plan: SweepPlan, configurations: Sequence[Configuration]) -> optuna.Study:
    """A study with a trial for each configuration; a configuration without a value counts as failed."""
    study = optuna.create_study(direction="maximize" if plan.config.mode == "max" else "minimize")
    study.add_trials(
        as_optuna(plan, c, state=TrialState.FAIL if c.mean is None else TrialState.COMPLETE)
        for c in configurations
    )
    return study


def _mark_stopped(
    axes: Axes, xs: Sequence[Any], configurations: Sequence[Configuration]
) -> PathCollection | None:
    """Cross out configurations of which no trial ran to its end."""
    stopped = [(x, c.mean) for x, c in zip(xs, configurations, strict=True) if not c.is_done]
    if not stopped:
        return None
    return axes.scatter(
        *zip(*stopped, strict=True), marker="x", color="black", label="stopped early", zorder=3
    )


def _count_over(axes: Axes, x: str, plan: SweepPlan) -> None:
    axes.set(xlabel=x, ylabel=plan.config.metric)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _format_metric(axes, plan)


def _format_metric(axes: Axes, plan: SweepPlan) -> None:
    """Show shares of images in percent."""
    if plan.measure not in NOT_SHARES:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))


@contextmanager
def _optuna_style(style: Mapping[Any, Any] = MappingProxyType({})) -> Iterator[None]:
    """Take Optuna's charts as experimental, open no window, and leave Matplotlib's settings as they were."""
    backend = mpl.get_backend()
    text = {key: value for key, value in STYLE.items() if key.startswith(("svg.", "text.parse"))}
    with mpl.rc_context({**text, **style}), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        plt.switch_backend("agg")
        try:
            yield
        finally:
            plt.switch_backend(backend)


def _chart(axes: Axes, name: str, title: str, words: str) -> Chart:
    """Render a chart; text is not parsed as mathematics, which Matplotlib's labels of logarithmic axes would need."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    axes.set_title("")
    for axis in (axis for own in figure.axes for axis in (own.xaxis, own.yaxis) if axis.get_scale() == "log"):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    chart = finished(name, title, words, figure)
    plt.close(figure)
    return chart
