"""Advise: say beforehand which method to take for two data sets, what it will reach and what it will cost.

python -m fourds_dist.advise photos/studio photos/street                       folders of images, or shards
python -m fourds_dist.advise shards/a shards/b --teacher teacher.safetensors teacher.arch=resnet50 --budget 2h
python -m fourds_dist.advise configs/quickstart.yaml --budget 10m              the data and networks of a run's file
ray job submit --working-dir . -- python -m fourds_dist.advise s3://bucket/a s3://bucket/b --gpus 8

The command trains a teacher, then several methods on your data in short trainings, the better half in longer ones, the
best with other settings, and the best with half of the labels, of the images and of the teacher's training. It prints
the recommended method, the accuracy to expect at full length with an interval, device hours and the runner-up, and
writes advised.yaml (for `fourds train`), advice.json and report.html to run.dir/NAME. Test labels are not used. The
budget begins when the data is packed. The same command resumes after a kill; a larger --budget adds runs.
Exit status: 0 an answer, 1 refused or failed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fourds_dist.cli.command import ExitStatus, command_parser, keys, run_command
from fourds_dist.cli.train import is_override
from fourds_dist.config.loading import Draft, draft
from fourds_dist.config.section import ConfigError
from fourds_dist.stages.launch_config import is_cluster_named
from fourds_dist.stages.settings import Settings

if TYPE_CHECKING:
    from fourds_dist.experiments.advise.plan import AdvisePlan
    from fourds_dist.experiments.executor import Through

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_YAML = (".yaml", ".yml")


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.advise`; return the exit status."""
    return run_command(parser(), arguments, _advise)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("python -m fourds_dist.advise", __doc__, keys(Settings, "keys of the run:"))
    parser.add_argument(
        "words",
        nargs="+",
        metavar="SOURCE TARGET",
        help="two data sets, or a run's file; and key=value of the run",
    )
    parser.add_argument("--teacher", metavar="T", help="weights of a trained teacher, or an architecture")
    parser.add_argument("--student", metavar="S", help="architecture of the student")
    parser.add_argument(
        "--budget", type=duration, default=1800.0, metavar="TIME", help="45s, 30m, 2h (default 30m)"
    )
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="GPUs to use at once (default: one after the other)"
    )
    parser.add_argument("--price", type=float, metavar="P", help="price of a device hour")
    parser.add_argument("--name", help="name of the folder under run.dir (default: from the data)")
    parser.add_argument("--through", choices=("here", "processes", "ray"), help="where runs are executed")
    return parser


def duration(text: str) -> float:
    """Return seconds of a time such as 45s, 30m or 1.5h.

    >>> duration("1.5h")
    5400.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give 45s, 30m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _advise(options: argparse.Namespace) -> ExitStatus:
    from rich.console import Console

    from fourds_dist.experiments.advise.run import advise
    from fourds_dist.launch.torchrun import refuse_launcher
    from fourds_dist.processes.signals import sigterm_as_ctrl_c

    sigterm_as_ctrl_c()
    refuse_launcher("advice")
    advise(plan_of(options), Console())
    return 0


def plan_of(options: argparse.Namespace) -> AdvisePlan:
    """Return the plan that the options of the command give."""
    from fourds_dist.experiments.advise.plan import AdviseConfig, make_plan
    from fourds_dist.launch.base_folder import base_folder

    overrides = [word for word in options.words if is_override(word)]
    places = [word for word in options.words if not is_override(word)]
    file = places.pop(0) if places and places[0].endswith(_YAML) else None
    if len(places) not in ((0, 2) if file else (2,)):
        raise ConfigError(f"give SOURCE and TARGET, or the file of a run, not {' '.join(options.words)!r}")
    given = draft(file, overrides)
    for key, place in zip(("source.url", "target.url"), places, strict=False):
        given = given.changed({key: place}, "the command")
    given = _with_networks(given, options)
    config = AdviseConfig(
        name=options.name or _name(given, file),
        budget_s=options.budget,
        gpus=options.gpus,
        price=options.price,
        through=_through(options),
    )
    return make_plan(config, given, draft(file), base_folder())


def _with_networks(given: Draft, options: argparse.Namespace) -> Draft:
    """Return the run with the networks of --teacher and --student."""
    for role, value in (("teacher", options.teacher), ("student", options.student)):
        if value is None:
            continue
        if Path(value).exists() or "://" in value or value.endswith((".pt", ".pth", ".safetensors")):
            key = "teacher.checkpoint" if role == "teacher" else "student.start"
        else:
            key = f"{role}.arch"
        given = given.changed({key: value}, f"--{role}")
    return given


def _name(given: Draft, file: str | None) -> str:
    """Return the name of the folder: advice-SOURCE-to-TARGET, or advice-FILE."""
    if file is not None:
        return f"advice-{_slug(Path(file).stem)}"
    places = [str(given.tree[domain]["url"]) for domain in ("source", "target")]
    return f"advice-{'-to-'.join(_slug(place.rstrip('/').rpartition('/')[2]) for place in places)}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "data"


def _through(options: argparse.Namespace) -> Through:
    if options.through is not None:
        return options.through
    if is_cluster_named():
        return "ray"
    return "processes" if (options.gpus or 1) > 1 else "here"


if __name__ == "__main__":
    sys.exit(main())
