"""Tune: many runs of one configuration, to find the best values of some keys.

python -m fourds_dist.tune configs/sweeps/quickstart.yaml                 a small sweep over the quickstart: minutes
python -m fourds_dist.tune SWEEP.yaml budget.trials=40 launch.workers=2   a sweep file, with keys of it or of its run
python -m fourds_dist.tune --resume s3://bucket/runs/adapters             go on with a sweep, wherever it lies
python -m fourds_dist.tune --resume runs/adapters budget.trials=80        add trials to one that is done
ray job submit --working-dir . -- python -m fourds_dist.tune SWEEP.yaml run.dir=s3://bucket/runs
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from fourds_dist.command import KEYS_BESIDES, Answer, answered, interrupt_at_sigterm, keys
from fourds_dist.sweep.settings import SweepConfig

LOG_WIDTH = 140
"""Columns of tables where there is no terminal."""


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.tune`; gives the exit status."""
    return answered(parser(), arguments, _tune)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m fourds_dist.tune",
        description=__doc__,
        epilog=keys(SweepConfig, KEYS_BESIDES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep file; with --resume also a sweep's folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the sweep or of its run")
    parser.add_argument("--resume", action="store_true", help="go on with the sweep that is there, if one is")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def _tune(options: argparse.Namespace) -> Answer:
    from fourds_dist.config import shipped
    from fourds_dist.launch.ranks import refuse_launcher
    from fourds_dist.runs.failures import StopKind
    from fourds_dist.sweep.plan import read_plan
    from fourds_dist.sweep.run import read_sweep, sweep
    from fourds_dist.train import base_folder

    interrupt_at_sigterm()
    refuse_launcher("a sweep")
    is_file = options.sweep.endswith((".yaml", ".yml"))
    if is_file:
        plan = read_plan(options.sweep, options.overrides, folder=base_folder())
    elif options.resume:
        plan = read_sweep(options.sweep, options.overrides)
    else:
        known = ", ".join(sorted(str(path) for path in shipped("sweeps").glob("*.yaml")))
        raise ValueError(f"{options.sweep} is no sweep file (.yaml); those that come along: {known}")
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    reason = sweep(plan, resume=options.resume, console=console)
    return 130 if reason is not None and reason.kind == StopKind.CTRL_C else None


if __name__ == "__main__":
    sys.exit(main())
