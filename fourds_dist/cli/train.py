"""Train: train the teacher on the source, then 4Ds on the target.

python -m fourds_dist.train                                       the quickstart
python -m fourds_dist.train CONFIG.yaml launch.workers=4          a configuration, with changes
python -m fourds_dist.train source.url=photos/studio target.url=photos/street     two folders of images, without a file
ray job submit --working-dir . -- python -m fourds_dist.train CONFIG.yaml run.dir=s3://bucket/runs
torchrun --nproc-per-node 2 -m fourds_dist.train CONFIG.yaml launch.runner=inline
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fourds_dist.cli.command import command_parser, keys
from fourds_dist.config.loading import draft
from fourds_dist.config.section import ConfigError
from fourds_dist.io.error_text import format_error
from fourds_dist.io.terminal import say
from fourds_dist.launch.base_folder import base_folder
from fourds_dist.launch.chosen import with_images
from fourds_dist.launch.ray.job import left_behind
from fourds_dist.launch.run import QUICKSTART, settings_of, train
from fourds_dist.processes.signals import sigterm_as_ctrl_c
from fourds_dist.stages.run_identity import refuse_moved
from fourds_dist.stages.settings import Settings, relative_inputs, with_absolute_paths
from fourds_dist.training.stop_signals import Stopped


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.train`; return the exit status."""
    options = _parser().parse_args(arguments)
    sigterm_as_ctrl_c()
    given = [options.config, *options.overrides] if options.config else []
    overrides = [word for word in given if is_override(word)]
    files = [word for word in given if not is_override(word)]
    inputs: dict[str, str] = {}
    try:
        if len(files) > 1:
            raise ConfigError(f"one configuration at a time, not {len(files)}: {', '.join(files)}")
        file = files[0] if files else None if _gives_data(overrides) else QUICKSTART
        given = draft(file, overrides)
        settings = settings_of(given, draft(file))
        inputs = relative_inputs(settings)
        settings = with_images(with_absolute_paths(settings, base_folder()), given)
        if files:
            refuse_moved(files[0], settings, [word.partition("=")[0] for word in overrides])
        train(settings)
    except Stopped:  # the last line of the run has the reason
        return 130
    except KeyboardInterrupt:
        print("stopped; the same command resumes from the newest checkpoint", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError, FloatingPointError) as error:
        if options.traceback:
            raise
        here = Path.cwd()
        behind = left_behind({"configuration": files[0]} if files else {}, here, here)
        behind += left_behind(inputs, here, Path.home())
        say(f"{format_error(error)}{behind}", file=sys.stderr)
        return 1
    return 0


def is_override(word: str) -> bool:
    """Return whether a word is `key=value`; paths may contain `=` in the names of folders (date=2026-01-01/)."""
    key, sign, _ = word.partition("=")
    return bool(sign) and "/" not in key


def _gives_data(overrides: list[str]) -> bool:
    """Whether a command without a file names its data, so that it is not the quickstart."""
    keys = {word.partition("=")[0].strip() for word in overrides}
    return bool(keys & {"source", "target", "source.url", "target.url"}) and "prepare" not in keys


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("python -m fourds_dist.train", __doc__, keys(Settings, "keys:"))
    parser.add_argument(
        "config",
        nargs="?",
        help="YAML file, a path or URL (default: the quickstart, or the defaults of all keys "
        "if source.url or target.url is given)",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, values as in YAML")
    return parser


if __name__ == "__main__":
    sys.exit(main())
