"""Train: the teacher on the source, then 4Ds on the target.

python -m fourds_dist.train                                       the quickstart
python -m fourds_dist.train CONFIG.yaml launch.workers=4          a configuration, with changes
ray job submit --working-dir . -- python -m fourds_dist.train CONFIG.yaml run.dir=s3://bucket/runs
torchrun --nproc-per-node 2 -m fourds_dist.train CONFIG.yaml launch.runner=inline
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fourds_dist.command import interrupt_at_sigterm, keys
from fourds_dist.config import ConfigError, Draft, differences, draft, dump, load, shipped
from fourds_dist.launch.ranks import fitted
from fourds_dist.launch.ray_job import is_job, left_behind
from fourds_dist.settings import Settings, relative_inputs, with_absolute_paths
from fourds_dist.storage import explained
from fourds_dist.terminal import say, words
from fourds_dist.training.outcome import Outcome
from fourds_dist.training.preflight import check
from fourds_dist.training.run_folder import RunFolder
from fourds_dist.training.stages import SUMMARY
from fourds_dist.training.stop import Stopped
from fourds_dist.training.world import World

QUICKSTART = shipped("quickstart.yaml")
MAY_CHANGE = ("launch.", "tracking.", "run.dir")
"""Keys that a run may change when it goes on: they leave what it computes as it is."""


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.train`; gives the exit status."""
    options = _parser().parse_args(arguments)
    interrupt_at_sigterm()
    given = [options.config, *options.overrides] if options.config else []
    overrides = [word for word in given if "=" in word]
    files = [word for word in given if "=" not in word]
    inputs: dict[str, str] = {}
    try:
        if len(files) > 1:
            raise ConfigError(f"one configuration at a time, not {len(files)}: {', '.join(files)}")
        settings = load_run(files[0] if files else QUICKSTART, overrides)
        inputs = relative_inputs(settings)
        train(with_absolute_paths(settings, base_folder()))
    except Stopped:  # the run's last line told it
        return 130
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError, FloatingPointError) as error:
        if options.traceback:
            raise
        here = Path.cwd()
        behind = left_behind({"configuration": files[0]} if files else {}, here, here)
        behind += left_behind(inputs, here, Path.home())
        say(f"error: {error}{behind}", file=sys.stderr)
        return 1
    return 0


def load_run(path: str | Path | None, overrides: Sequence[str]) -> Settings:
    """The configuration of a run as `load` gives it, which also fits how this process was started.

    Raises:
        ConfigError: see `load` and `launch.ranks.fitted`.
    """
    return settings_of(draft(path, overrides), draft(path))


def settings_of(given: Draft, file: Draft) -> Settings:
    """The configuration of a run; see `load_run` and `launch.ranks.fitted`."""
    settings = given.build(Settings)
    return settings.model_copy(update={"launch": fitted(settings.launch, given, file)})


def train(settings: Settings) -> Outcome | None:
    """Run all stages as configured, or what is left of them, and show the table; None where `run.until` ends earlier.

    Raises:
        ValueError: a configuration that cannot work, found before anything is started.
        RuntimeError: a stage that failed.
        FloatingPointError: a stage in this process whose numbers are no longer finite.
    """
    folder = RunFolder(settings.run_url)
    with explained(folder.url):  # nothing was asked of its store before
        was_done = folder.exists(SUMMARY)
    is_main = run(settings)
    if not folder.exists(SUMMARY):
        if is_main:
            say(f"run.until={settings.run.until}: done, in {folder.url}")
        return None
    outcome = Outcome.from_dict(folder.read_json(SUMMARY))
    if is_main:
        console = Console()
        outcome.show(console)
        console.print(words(f"student: {folder.path('student.safetensors')}"), soft_wrap=True)
        _show_report(folder, console, is_kept=was_done)
    return outcome


def run(settings: Settings) -> bool:
    """Run all stages as configured, or what is left of them, and show nothing but their progress; see `train`.

    Gives whether this process is the one that speaks: with torchrun, rank 0's.
    """
    folder = RunFolder(settings.run_url)
    world = (
        World.join(timeout_s=settings.launch.collective_timeout_s)
        if settings.launch.runner == "inline"
        else None
    )
    is_main = world is None or world.is_main
    if is_main:
        prepare(settings)
        check(settings)
        _claim(folder, settings)
    if world is None:
        from fourds_dist.launch.ray_train import run_on_ray

        run_on_ray(settings)
    else:
        from fourds_dist.training.inline import run_inline

        world.barrier()
        run_inline(settings, world)
    return is_main


def _show_report(folder: RunFolder, console: Console, *, is_kept: bool) -> None:
    """End the run with its report; the one that is there is shown again if it `is_kept`."""
    from fourds_dist.results.report import PAGE, write_report

    place = folder.path(PAGE) if is_kept and folder.exists(PAGE) else write_report(folder.url)
    if place is not None:
        console.print(words(f"report: {place}"), soft_wrap=True)


def prepare(settings: Settings) -> None:
    """Pack the built-in domains that the configuration asks for, where they are not there yet."""
    if settings.prepare == "digits":
        from fourds_dist.data.sources.digits import pack_quickstart

        pack_quickstart(settings)


def _claim(folder: RunFolder, settings: Settings) -> None:
    """Write the resolved configuration into the run's folder, unless another one is there."""
    refuse_another(folder, settings)
    folder.write_text("config.yaml", dump(settings))


def refuse_another(folder: RunFolder, settings: Settings) -> None:
    """Refuse a folder that holds a run of another configuration.

    Raises:
        ConfigError: naming what differs.
    """
    if folder.exists("config.yaml"):
        held = load(Settings, folder.path("config.yaml"))
        changed = [d for d in differences(held, settings) if not d.startswith(MAY_CHANGE)]
        if changed:
            raise ConfigError(
                f"{folder.url} holds a run of another configuration ({'; '.join(changed[:5])}); "
                "choose another run.name, or repeat its configuration to go on with it"
            )


def base_folder() -> Path:
    """What relative paths are relative to: the working folder, but not one that Ray deletes with the job."""
    here = Path.cwd()
    if is_job(here):
        print(
            f"relative paths lie under {Path.home()}: this job's working folder goes with the job",
            file=sys.stderr,
        )
        return Path.home()
    return here


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fourds_dist.train",
        description=__doc__,
        epilog=keys(Settings, "keys:"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", help="YAML file; left out: the quickstart")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, values as in YAML")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


if __name__ == "__main__":
    sys.exit(main())
