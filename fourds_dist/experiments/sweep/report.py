"""What a sweep leaves at its end: a table, best.yaml, trials.csv, and report.html with its charts."""

from __future__ import annotations

from rich.console import Console

from fourds_dist.experiments.sweep import plots
from fourds_dist.experiments.sweep.live_table import figures, results_table, short
from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.results import as_csv, best_yaml, importance
from fourds_dist.experiments.sweep.trial_store import TrialStore
from fourds_dist.io.storage import write_bytes
from fourds_dist.io.terminal import words
from fourds_dist.reports.page import ReportPage, ReportSection, ReportTable

PAGE, FOLDER, BEST, CSV = "report.html", "report", "best.yaml", "trials.csv"
MOST_LISTED = 50


def write_results(plan: SweepPlan, trial_store: TrialStore, console: Console) -> None:
    """Write all files into the folder of the sweep, and print the best configurations and the paths of the files."""
    write_bytes(f"{plan.url}/{CSV}", as_csv(plan, trial_store).encode())
    ranked = trial_store.ranked()
    console.print(words(_counts(plan, trial_store)), soft_wrap=True)
    if not ranked:
        console.print("no trial has come to the end of an epoch: there is nothing to compare")
        return
    console.print(results_table(plan, ranked))
    shares = importance(plan, trial_store.configurations())
    if shares:
        listed = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        console.print(words(f"what matters: {listed}"), soft_wrap=True)
    write_bytes(f"{plan.url}/{BEST}", best_yaml(plan, ranked[0]).encode())
    page = _page(plan, trial_store, shares)
    for name, png in page.pngs().items():
        write_bytes(f"{plan.url}/{FOLDER}/{name}", png)
    write_bytes(f"{plan.url}/{PAGE}", page.html().encode())
    places = f"best: python -m fourds_dist.train {plan.url}/{BEST}\nreport: {plan.url}/{PAGE}"
    console.print(words(places), soft_wrap=True, highlight=False)


def _counts(plan: SweepPlan, trial_store: TrialStore) -> str:
    states = ["waiting" if t.state == "running" else t.state for t in trial_store.trials.values()]
    names = {"done": "done", "stopped": "stopped early", "failed": "left out", "waiting": "not at their end"}
    counts = ", ".join(f"{states.count(state)} {name}" for state, name in names.items() if state in states)
    whole = sum(trial.num_epochs for trial in trial_store.trials.values())
    return f"{plan.config.name}: {len(states)} trials, {counts}; {trial_store.num_epochs} of {whole} epochs trained"


def _page(plan: SweepPlan, trial_store: TrialStore, shares: dict[str, float]) -> ReportPage:
    config, ranked = plan.config, trial_store.ranked()
    best = ranked[0]
    value, tested, came = figures(best, plan.measure)
    verdict = f"Best: configuration {best.number:04d} with {config.metric} {value}" + (
        f", {tested} of the target's test images" if best.tested else f" ({came})"
    )
    if shares:
        first = next(iter(shares))
        verdict += f". {first} matters most: it explains {shares[first]:.0%} of the differences"
    facts = [
        ("search", config.search),
        ("scheduler", config.scheduler.name),
        ("seeds", str(config.seeds)),
        ("trials", str(len(trial_store.trials))),
        ("epochs", str(trial_store.num_epochs)),
    ]
    configurations = trial_store.configurations()
    matter = [plots.importance(shares) if shares else None, plots.parallel(plan, configurations)]
    responses = [c for key in plan.space.parameters if (c := plots.response(plan, configurations, key))]
    sections = [
        ReportSection(
            "best",
            "The best",
            tables=[_table(plan, trial_store)],
            code=[("best.yaml", best_yaml(plan, best))],
        ),
        ReportSection(
            "progress",
            "Progress of the sweep",
            [_counts(plan, trial_store) + "."],
            charts=plots.progress(plan, trial_store),
        ),
        ReportSection(
            "importance", "What matters", _on_importance(shares), charts=list(filter(None, matter))
        ),
        ReportSection(
            "response", "Key by key", ["" if responses else "No key has two values yet."], charts=responses
        ),
    ]
    if failures := _failures(trial_store):
        sections.append(ReportSection("failures", "What failed", tables=[failures]))
    again = f"python -m fourds_dist.tune --resume {plan.url}"
    return ReportPage(config.name, verdict + ".", facts, sections, again)


def _on_importance(shares: dict[str, float]) -> list[str]:
    if not shares:
        return ["There are too few configurations to say."]
    return [
        "Share of the differences that each key explains alone, by fANOVA over all configurations with a value. With "
        "few of them, or many that were stopped early, it is a hint and no more."
    ]


def _table(plan: SweepPlan, trial_store: TrialStore) -> ReportTable:
    keys = list(plan.space.parameters)
    rows = [
        (
            f"{c.number:04d}",
            *figures(c, plan.measure),
            *(short(c.params[k]) if k in c.params else "-" for k in keys),
        )
        for c in trial_store.ranked()[:MOST_LISTED]
    ]
    columns = ("configuration", plan.config.metric, "test", "", *keys)
    return ReportTable(columns, rows, frozenset({1, 2, *range(4, 4 + len(keys))}), strong=0)


def _failures(trial_store: TrialStore) -> ReportTable | None:
    rows = [(t.name, t.state, "; ".join(t.failures)) for t in trial_store.trials.values() if t.failures]
    return ReportTable(("trial", "then", "failures"), rows) if rows else None
