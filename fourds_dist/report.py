"""Report: a run in one page, or several side by side.

python -m fourds_dist.report runs/photos-to-sketches           rebuild its report.html and the pictures beside it
python -m fourds_dist.report runs/a runs/b --out compared      two runs side by side, in compared/report.html
python -m fourds_dist.report s3://bucket/runs --out compared   all runs below a folder

Every run ends with its report; a run that still goes on, or failed, has one as far as it came. Runs are paths or URLs.
The networks look at the test images once more for it; what they saw is kept in the run's folder, in report/.
"""

from __future__ import annotations

import argparse
import sys

from fourds_dist.command import Answer, answered
from fourds_dist.terminal import say


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m fourds_dist.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder, or a folder of runs")
    parser.add_argument(
        "--out", metavar="FOLDER", help="where report.html goes (default: the run's own folder)"
    )
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="test images to look at, evenly spread, however long it takes (default: those that were looked at when "
        "the run ended: at most 1000, for some seconds)",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.report`; gives the exit status."""
    return answered(parser(), arguments, _report)


def _report(options: argparse.Namespace) -> Answer:
    from fourds_dist.results.report import report
    from fourds_dist.results.run import find_runs

    if options.images is not None and options.images < 1:
        raise ValueError(f"--images {options.images}: give 1 or more")
    say(report(find_runs(options.runs), options.out, num_images=options.images))
    return None


if __name__ == "__main__":
    sys.exit(main())
