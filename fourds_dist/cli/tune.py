"""Tune: search the best values of keys with many runs of one configuration.

python -m fourds_dist.tune configs/sweeps/quickstart.yaml                 a small sweep of the quickstart: minutes
python -m fourds_dist.tune SWEEP.yaml budget.trials=40 launch.workers=2   a sweep file, with keys of the sweep or run
python -m fourds_dist.tune --resume s3://bucket/runs/adapters             resume a sweep at a path or URL
python -m fourds_dist.tune --resume runs/adapters budget.trials=80        add trials to a finished sweep
python -m fourds_dist.tune SWEEP.yaml through=processes launch.runner=inline   without Ray, for short trials
ray job submit --working-dir . -- python -m fourds_dist.tune SWEEP.yaml run.dir=s3://bucket/runs
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from fourds_dist.cli.command import KEYS_BESIDES, ExitStatus, command_parser, keys, run_command
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.processes.signals import sigterm_as_ctrl_c

LOG_WIDTH = 140
"""Columns of tables if the output is not a terminal."""


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.tune`; return the exit status."""
    return run_command(parser(), arguments, _tune)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("python -m fourds_dist.tune", __doc__, keys(SweepConfig, KEYS_BESIDES))
    parser.add_argument("sweep", metavar="SWEEP", help="sweep file; with --resume also the folder of a sweep")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the sweep or of its run")
    parser.add_argument("--resume", action="store_true", help="resume the sweep, if one exists")
    return parser


def _tune(options: argparse.Namespace) -> ExitStatus:
    from fourds_dist.config.loading import builtin_config
    from fourds_dist.experiments.sweep.plan import read_plan
    from fourds_dist.experiments.sweep.run import read_sweep, sweep
    from fourds_dist.launch.base_folder import base_folder
    from fourds_dist.launch.torchrun import refuse_launcher
    from fourds_dist.runs.failures import StopKind

    sigterm_as_ctrl_c()
    refuse_launcher("a sweep")
    is_file = options.sweep.endswith((".yaml", ".yml"))
    if is_file:
        plan = read_plan(options.sweep, options.overrides, folder=base_folder())
    elif options.resume:
        plan = read_sweep(options.sweep, options.overrides)
    else:
        known = ", ".join(sorted(str(path) for path in builtin_config("sweeps").glob("*.yaml")))
        raise ValueError(f"{options.sweep} is not a sweep file (.yaml); built-in sweep files: {known}")
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    reason = sweep(plan, resume=options.resume, console=console)
    return 130 if reason is not None and reason.kind == StopKind.CTRL_C else None


if __name__ == "__main__":
    sys.exit(main())
