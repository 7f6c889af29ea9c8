"""Report: an HTML page of a run, or of several runs side by side.

python -m fourds_dist.report runs/photos-to-sketches           write its report.html and pictures again
python -m fourds_dist.report runs/a runs/b --out compared      two runs side by side, in compared/report.html
python -m fourds_dist.report s3://bucket/runs --out compared   all runs below a folder

Every run writes its report at the end. This command also reports running and failed runs. Runs are paths or URLs. For
the report of one run the networks are evaluated on test images again; their predictions are stored in report/ of the
run's folder. The report of several runs has their results, their differing keys and their training curves.
"""

from __future__ import annotations

import argparse
import sys

from fourds_dist.cli.command import ExitStatus, command_parser, run_command
from fourds_dist.io.terminal import say


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("python -m fourds_dist.report", __doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder, or a folder of runs")
    parser.add_argument("--out", metavar="FOLDER", help="folder of report.html (default: the run's folder)")
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="of one run: number of test images to evaluate, evenly spread, without a time limit (default: the images "
        "evaluated at the end of the run: at most 1000, for some seconds)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.report`; return the exit status."""
    return run_command(parser(), arguments, _report)


def _report(options: argparse.Namespace) -> ExitStatus:
    from fourds_dist.reports.report import report
    from fourds_dist.stages.finished_run import find_runs

    if options.images is not None and options.images < 1:
        raise ValueError(f"--images {options.images}: give 1 or more")
    say(report(find_runs(options.runs), options.out, num_images=options.images))
    return None


if __name__ == "__main__":
    sys.exit(main())
