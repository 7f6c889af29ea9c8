"""The end of a sweep: its table, best.yaml, trials.csv, and report.html with its charts beside it."""

from __future__ import annotations

from rich.console import Console

from fourds_dist.results.page import Page, Section, Table
from fourds_dist.storage import write_bytes
from fourds_dist.sweep import plots
from fourds_dist.sweep.ledger import Ledger
from fourds_dist.sweep.plan import Plan
from fourds_dist.sweep.results import as_csv, best_yaml, importance
from fourds_dist.sweep.view import figures, results_table, short
from fourds_dist.terminal import words

PAGE, FOLDER, BEST, CSV = "report.html", "report", "best.yaml", "trials.csv"
MOST_LISTED = 50


def write_results(plan: Plan, ledger: Ledger, console: Console) -> None:
    """Write all of it into the sweep's folder, and show the best configurations and where the rest is."""
    write_bytes(f"{plan.url}/{CSV}", as_csv(plan, ledger).encode())
    ranked = ledger.ranked()
    console.print(words(_counts(plan, ledger)), soft_wrap=True)
    if not ranked:
        console.print("no trial has come to the end of an epoch: there is nothing to compare")
        return
    console.print(results_table(plan, ranked))
    shares = importance(plan, ledger.configurations())
    if shares:
        told = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        console.print(words(f"what matters: {told}"), soft_wrap=True)
    write_bytes(f"{plan.url}/{BEST}", best_yaml(plan, ranked[0]).encode())
    page = _page(plan, ledger, shares)
    for name, png in page.pngs().items():
        write_bytes(f"{plan.url}/{FOLDER}/{name}", png)
    write_bytes(f"{plan.url}/{PAGE}", page.html().encode())
    places = f"best: python -m fourds_dist.train {plan.url}/{BEST}\nreport: {plan.url}/{PAGE}"
    console.print(words(places), soft_wrap=True, highlight=False)


def _counts(plan: Plan, ledger: Ledger) -> str:
    states = ["waiting" if t.state == "running" else t.state for t in ledger.trials.values()]
    names = {"done": "done", "stopped": "stopped early", "failed": "left out", "waiting": "not at their end"}
    counts = ", ".join(f"{states.count(state)} {name}" for state, name in names.items() if state in states)
    whole = sum(trial.num_epochs for trial in ledger.trials.values())
    return (
        f"{plan.config.name}: {len(states)} trials, {counts}; {ledger.num_epochs} of {whole} epochs trained"
    )


def _page(plan: Plan, ledger: Ledger, shares: dict[str, float]) -> Page:
    config, ranked, mode = plan.config, ledger.ranked(), ledger.mode
    all_of_them = ledger.configurations()
    best = ranked[0]
    value, tested, came = figures(best)
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
        ("trials", str(len(ledger.trials))),
        ("epochs", str(ledger.num_epochs)),
    ]
    charts = [plots.history(all_of_them, mode, config.metric), plots.courses(ledger, config.metric)]
    matter = [plots.importances(shares)] if shares else []
    matter.append(plots.parallel(plan.space, all_of_them, mode, config.metric))
    responses = [plots.response(k, p, all_of_them, config.metric) for k, p in plan.space.parameters.items()]
    sections = [
        Section(
            "best", "The best", tables=[_table(plan, ledger)], code=[("best.yaml", best_yaml(plan, best))]
        ),
        Section("course", "How it went", [_counts(plan, ledger) + "."], charts=charts),
        Section("importance", "What matters", _on_importance(shares), charts=matter),
        Section("response", "Key by key", charts=responses),
    ]
    if failures := _failures(ledger):
        sections.append(Section("failures", "What failed", tables=[failures]))
    return Page(config.name, verdict + ".", facts, sections)


def _on_importance(shares: dict[str, float]) -> list[str]:
    if not shares:
        return ["There are too few configurations to say."]
    return [
        "Share of the differences that each key explains alone, by fANOVA over all configurations with a value. With "
        "few of them, or many that were stopped early, it is a hint and no more."
    ]


def _table(plan: Plan, ledger: Ledger) -> Table:
    keys = list(plan.space.parameters)
    rows = [
        (f"{c.number:04d}", *figures(c), *(short(c.point[k]) if k in c.point else "-" for k in keys))
        for c in ledger.ranked()[:MOST_LISTED]
    ]
    columns = ("configuration", plan.config.metric, "test", "", *keys)
    return Table(columns, rows, frozenset({1, 2, *range(4, 4 + len(keys))}), strong=0)


def _failures(ledger: Ledger) -> Table | None:
    rows = [(t.name, t.state, "; ".join(t.failures)) for t in ledger.trials.values() if t.failures]
    return Table(("trial", "then", "failures"), rows) if rows else None
