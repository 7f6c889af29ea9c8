"""Takes a node away from an elastic run and gives it another one, and sets its losses beside those of a fixed run.

    python -m tests.harness.elastic --folder elastic   # on a local Ray cluster of two nodes, started here; leaves
    losses.png

Both runs see the same global batches in the same order. Up to the loss of the node they agree to the digit; after it
one worker normalises by the whole batch where two did by halves of it.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fourds_dist.processes.signals import sigterm_as_ctrl_c
from tests.harness.kill import LocalCluster, Run, pack

KEYS = ("run.until=source", "source_stage.checkpoint_every_steps=10", "launch.resize_every_s=5")
Rows = list[dict[str, Any]]


def losses(rows: Rows) -> dict[int, float]:
    """Step -> loss."""
    return {row["step"]: row["loss"] for row in rows if row["event"] == "step"}


def wait_until(run: Run, true_of: Callable[[Rows], bool]) -> None:
    """Watch a run's log.

    Raises:
        RuntimeError: the run ended before.
    """
    while not true_of(run.rows()):
        if run.is_over():
            run.finish(timeout_s=1)
            raise RuntimeError("the run was over too soon; raise --epochs")
        time.sleep(0.1)


def lose_and_regain(run: Run, cluster: LocalCluster, num_steps: int, notice_s: int | None) -> None:
    """A node goes after `num_steps` steps; another one comes after as many by the worker that is left."""
    run.start()
    wait_until(run, lambda rows: max(losses(rows), default=0) >= num_steps)
    cluster.lose_node(random.Random(0), notice_s)
    wait_until(run, lambda rows: starts(rows)[-1][1] == 1)
    shrunk = starts(run.rows())[-1][0]
    wait_until(run, lambda rows: max(losses(rows)) >= shrunk + num_steps)
    cluster.add_node()
    wait_until(run, lambda rows: starts(rows)[-1][1] == 2)
    run.finish(timeout_s=1800)


def starts(rows: Rows) -> list[tuple[int, int]]:
    """(step, workers) of every start."""
    return [(row["step"], row["num_workers"]) for row in rows if row["event"] == "start"]


def draw(
    fixed: dict[int, float], elastic: dict[int, float], where: list[tuple[int, int]], file: Path
) -> None:
    """Both curves, and the steps at which the number of workers changed."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.plot(list(fixed), list(fixed.values()), label="fixed: 2 workers", linewidth=2.5, alpha=0.5)
    axes.plot(list(elastic), list(elastic.values()), label="elastic: 1 to 2 workers", linewidth=1)
    for step, workers in where:
        axes.axvline(step, color="gray", linewidth=0.8)
        axes.text(step, axes.get_ylim()[1], f" {workers}", va="top")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    figure.savefig(file, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    """Run both and print what happened."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.elastic", description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the runs and the picture here")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=100, help="steps before the loss, and before the return")
    parser.add_argument("--notice-s", type=int, help="announce the loss so long before, as spot machines do")
    options = parser.parse_args(arguments)
    sigterm_as_ctrl_c()
    with tempfile.TemporaryDirectory(prefix="elastic-") as name:
        folder: Path = (options.folder or Path(name)).resolve()
        pack(folder / "shards")
        keys = (*KEYS, f"source_stage.epochs={options.epochs}")
        fixed, elastic = Run(folder, "fixed", *keys), Run(folder, "elastic", *keys, "launch.workers=[1, 2]")
        cluster = LocalCluster(2)
        os.environ["RAY_ADDRESS"] = cluster.address
        try:
            fixed.start()
            fixed.finish(timeout_s=1800)
            lose_and_regain(elastic, cluster, options.steps, options.notice_s)
        finally:
            cluster.close()
        rows, theirs, where = elastic.rows(), losses(fixed.rows()), starts(elastic.rows())
        ours = losses(rows)
        for row in rows:
            if row["event"] == "start":
                print(f"step {row['step']:4}: {row['num_workers']} workers")
            if row["event"] == "note":
                print(f"step {row['step']:4}: {row['text']}")
        print(f"{'step':>5} {'fixed':>8} {'elastic':>8}")
        for step in sorted(theirs)[:: max(1, len(theirs) // 20)]:
            print(f"{step:5} {theirs[step]:8.4f} {ours[step]:8.4f}")
        same = next((step for step in sorted(theirs) if theirs[step] != ours[step]), None)
        print(f"{len(theirs)} steps each, the same losses to the digit until step {same}")
        draw(theirs, ours, where[1:], folder / "losses.png")
    return 0 if theirs.keys() == ours.keys() else 1


if __name__ == "__main__":
    sys.exit(main())
