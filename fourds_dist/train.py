"""Train: the teacher on the source, then 4Ds on the target.

python -m fourds_dist.train                                       the quickstart
python -m fourds_dist.train CONFIG.yaml launch.workers=4          a configuration, with changes
ray job submit --working-dir . -- python -m fourds_dist.train CONFIG.yaml run.dir=s3://bucket/runs
torchrun --nproc-per-node 2 -m fourds_dist.train CONFIG.yaml launch.runner=inline
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from fourds_dist.command import interrupt_at_sigterm, keys
from fourds_dist.config import ConfigError, Draft, draft, dump, shipped
from fourds_dist.launch.ranks import fitted, leave_with_torchrun
from fourds_dist.launch.ray_job import is_job, left_behind
from fourds_dist.runs.layout import DONE, RunFile, StageName
from fourds_dist.settings import Settings, relative_inputs, with_absolute_paths
from fourds_dist.storage import explained
from fourds_dist.terminal import say, words
from fourds_dist.training.identity import begun_stages, changes, keep_images, refuse_moved
from fourds_dist.training.lease import held
from fourds_dist.training.outcome import Outcome
from fourds_dist.training.preflight import check, check_before_packing
from fourds_dist.training.run_folder import RunFolder, refuse_memory
from fourds_dist.training.stages import stages_to_run
from fourds_dist.training.stop import Stopped
from fourds_dist.training.world import World

QUICKSTART = shipped("quickstart.yaml")


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.train`; gives the exit status."""
    options = _parser().parse_args(arguments)
    interrupt_at_sigterm()
    given = [options.config, *options.overrides] if options.config else []
    overrides = [word for word in given if is_override(word)]
    files = [word for word in given if not is_override(word)]
    inputs: dict[str, str] = {}
    try:
        if len(files) > 1:
            raise ConfigError(f"one configuration at a time, not {len(files)}: {', '.join(files)}")
        settings = load_run(files[0] if files else QUICKSTART, overrides)
        inputs = relative_inputs(settings)
        settings = with_absolute_paths(settings, base_folder())
        if files:
            refuse_moved(files[0], settings, [word.partition("=")[0] for word in overrides])
        train(settings)
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
        was_done = folder.exists(RunFile.SUMMARY)
    is_main = run(settings)
    if not folder.exists(RunFile.SUMMARY):
        if is_main:
            say(f"run.until={settings.run.until}: done, in {folder.url}")
        return None
    outcome = Outcome.from_dict(folder.read_json(RunFile.SUMMARY))
    if is_main:
        console = Console()
        outcome.show(console)
        console.print(words(f"student: {folder.path(RunFile.STUDENT)}"), soft_wrap=True)
        _show_report(folder, console, is_kept=was_done)
    return outcome


def run(settings: Settings, *, wait_s: float = 0.0) -> bool:
    """Run all stages as configured, or what is left of them, and show nothing but their progress; see `train`.

    Gives whether this process is the one that speaks: with torchrun, rank 0's.

    Args:
        wait_s: how long another driver of the same run, which may be leaving, is waited for.
    """
    world = (
        World.join(timeout_s=settings.launch.collective_timeout_s)
        if settings.launch.runner == "inline"
        else None
    )
    is_main = world is None or world.is_main
    with _claimed(settings, world, wait_s) if is_main else nullcontext():
        if world is None:
            from fourds_dist.launch.ray_train import run_on_ray

            run_on_ray(settings)
        else:
            from fourds_dist.training.inline import run_inline

            leave_with_torchrun()
            world.barrier()
            run_inline(settings, world)
    return is_main


@contextmanager
def _claimed(settings: Settings, world: World | None, wait_s: float) -> Iterator[None]:
    """Check everything, then hold the run's folder with this configuration while the context lasts.

    Of a run that is done only the configuration is looked at: its data may be gone.
    """
    folder = RunFolder(settings.run_url)
    refuse_memory(folder.url, is_one_process=world is not None and world.size == 1)
    with explained(folder.url):
        changes(folder, settings)
        stages = stages_to_run(settings)
        left: list[StageName] = [stage for stage in stages if not folder.exists(DONE[stage])]
    if stages and not left:
        yield
        return
    with held(folder.url, wait_s=wait_s):
        changed = changes(folder, settings)  # again: another driver may have been here meanwhile
        prepare(settings)
        check(settings)
        keep_images(folder, settings)
        folder.write_text(RunFile.CONFIG, dump(settings))
        if changed and (begun := begun_stages(folder, settings)):
            folder.note(left[0] if left else begun[-1], f"goes on with other values: {'; '.join(changed)}")
        yield


def _show_report(folder: RunFolder, console: Console, *, is_kept: bool) -> None:
    """End the run with its report; the one that is there is shown again if it `is_kept`."""
    from fourds_dist.results.report import write_report

    is_there = is_kept and folder.exists(RunFile.REPORT)
    place = folder.path(RunFile.REPORT) if is_there else write_report(folder.url)
    if place is not None:
        console.print(words(f"report: {place}"), soft_wrap=True)


def prepare(settings: Settings, runs: Sequence[Settings] | None = None) -> None:
    """Pack the built-in domains that the configuration asks for, where they are not there yet.

    Args:
        runs: the runs that are to have them; None: the configuration itself.

    Raises:
        ValueError: a configuration that cannot work, as far as that is known without data; nothing is packed then.
    """
    if settings.prepare == "digits":
        from fourds_dist.data.sources.digits import CLASSES, missing_domains, pack_quickstart

        if missing_domains(settings):
            for needing in [settings] if runs is None else runs:
                check_before_packing(needing, num_classes=len(CLASSES))
        pack_quickstart(settings)


def is_override(word: str) -> bool:
    """Whether a word is `key=value` and no file, whose folders may have a `=` in their names (date=2026-01-01/)."""
    key, sign, _ = word.partition("=")
    return bool(sign) and "/" not in key


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
    parser.add_argument("config", nargs="?", help="YAML file, a path or URL; left out: the quickstart")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, values as in YAML")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


if __name__ == "__main__":
    sys.exit(main())
