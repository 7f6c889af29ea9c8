"""A run from configuration to table: check the configuration, hold the folder, start workers, show the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from fourds_dist.config.loading import Draft, builtin_config, draft, dump
from fourds_dist.config.stage_names import StageName
from fourds_dist.io.extras import importing
from fourds_dist.io.storage import translate_storage_errors
from fourds_dist.io.terminal import say, words
from fourds_dist.launch.image_inputs import pack_images
from fourds_dist.launch.observer import RunObserver
from fourds_dist.launch.torchrun import fit_to_launcher, leave_with_torchrun
from fourds_dist.runs.layout import DONE, Network, RunFile, display_name
from fourds_dist.runs.lease import held
from fourds_dist.runs.run_folder import RunFolder, refuse_memory
from fourds_dist.runs.summary import RunSummary
from fourds_dist.stages.preflight import check, check_before_packing
from fourds_dist.stages.run_identity import begun_stages, changes, keep_images, started_with_network_inputs
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.sinks.mlflow import log_results
from fourds_dist.stages.stages import stages_to_run
from fourds_dist.training.distributed.world import World

QUICKSTART = builtin_config("quickstart.yaml")


def load_run(path: str | Path | None, overrides: Sequence[str]) -> Settings:
    """Load the configuration of a run and fit its launch section to the launcher of this process.

    Raises:
        ConfigError: see `load` and `launch.torchrun.fit_to_launcher`.
    """
    return settings_of(draft(path, overrides), draft(path))


def settings_of(given: Draft, file: Draft) -> Settings:
    """Build the configuration of a run; see `load_run`."""
    settings = given.build(Settings)
    return settings.model_copy(update={"launch": fit_to_launcher(settings.launch, given, file)})


def train(settings: Settings) -> RunSummary | None:
    """Run all unfinished stages and show the table; return None if `run.until` ends the run before distillation.

    Raises:
        ValueError: an invalid configuration, found before the start of workers.
        RuntimeError: a stage failed.
        FloatingPointError: a stage in this process has non-finite values.
    """
    folder = RunFolder(settings.run_url)
    with translate_storage_errors(folder.url):  # the first request to the store
        was_done = folder.exists(RunFile.SUMMARY)
    is_main = run(settings)
    if not folder.exists(RunFile.SUMMARY):
        if is_main:
            say(f"run.until={settings.run.until}: done, in {folder.url}")
        return None
    summary = RunSummary.from_dict(folder.read_json(RunFile.SUMMARY))
    if is_main:
        console = Console()
        summary.show(console)
        for name in summary.students or ("",):
            path = folder.path(RunFile.STUDENT.of_student(name))
            console.print(words(f"{display_name(Network.STUDENT.of_student(name))}: {path}"), soft_wrap=True)
        _show_report(folder, console, is_kept=was_done)
        if "mlflow" in settings.tracking.tools and not was_done:
            log_results(folder)
    return summary


def run(settings: Settings, *, wait_s: float = 0.0, observer: RunObserver | None = None) -> bool:
    """Run all unfinished stages and show only their progress; see `train`.

    Returns:
        Whether this process prints results: under torchrun, only rank 0.

    Args:
        wait_s: how long to wait for another driver of the same run to end, in seconds.
        observer: receives the events of the run, and may stop the run; None: nobody does.
    """
    observer = observer or RunObserver()
    world = (
        World.join(timeout_s=settings.launch.collective_timeout_s)
        if settings.launch.runner == "inline"
        else None
    )
    is_main = world is None or world.is_main
    settings = started_with_network_inputs(settings) if is_main else settings
    with _claimed(settings, world, wait_s) if is_main else nullcontext():
        if world is None:
            with _importing_ray():
                from fourds_dist.launch.ray.train import run_on_ray

            run_on_ray(settings, observer)
        else:
            from fourds_dist.launch.inline import run_inline

            leave_with_torchrun()
            world.barrier()
            settings = world.gather(settings)[0]  # rank 0 alone has read what the weights say of their images
            run_inline(settings, world, observer)
    return is_main


@contextmanager
def _claimed(settings: Settings, world: World | None, wait_s: float) -> Iterator[None]:
    """Check the configuration, then hold the run's folder while the context lasts.

    For a finished run only the configuration is checked, since its data may have been removed.
    """
    folder = RunFolder(settings.run_url)
    refuse_memory(folder.url, is_one_process=world is not None and world.size == 1)
    with translate_storage_errors(folder.url):
        changes(folder, settings)
        stages = stages_to_run(settings)
        left: list[StageName] = [stage for stage in stages if not folder.exists(DONE[stage])]
    if stages and not left:
        yield
        return
    if settings.launch.runner == "ray":
        with _importing_ray():  # before the data is packed
            import fourds_dist.launch.ray.train  # noqa: F401
    with held(folder.url, wait_s=wait_s):
        changed = changes(folder, settings)  # again: another driver may have changed the folder
        prepare(settings)
        check(settings)
        keep_images(folder, settings)
        folder.write_text(RunFile.CONFIG, dump(settings))
        if changed and (begun := begun_stages(folder, settings)):
            folder.note(left[0] if left else begun[-1], f"resumes with other values: {'; '.join(changed)}")
        yield


def _importing_ray() -> AbstractContextManager[None]:
    return importing("ray", "train in this process with launch.runner=inline")


def _show_report(folder: RunFolder, console: Console, *, is_kept: bool) -> None:
    """Write the report and print its path; with `is_kept`, an existing report is not written again."""
    from fourds_dist.reports.report import write_report

    exists = is_kept and folder.exists(RunFile.REPORT)
    path = folder.path(RunFile.REPORT) if exists else write_report(folder.url)
    if path is not None:
        console.print(words(f"report: {path}"), soft_wrap=True)


def prepare(settings: Settings, runs: Sequence[Settings] | None = None) -> None:
    """Pack the built-in domains of `prepare` and the images of `packed_from`, unless they are packed already.

    Args:
        runs: configurations of the runs that need the domains; None: `settings`.

    Raises:
        ValueError: an invalid configuration, as far as checks without data can find, or unusable images; nothing is
            packed.
    """
    if settings.prepare == "digits":
        from fourds_dist.data.datasets.digits import CLASSES
        from fourds_dist.launch.quickstart import missing_domains, pack_quickstart

        if missing_domains(settings):
            for each in [settings] if runs is None else runs:
                check_before_packing(each, num_classes=len(CLASSES))
        pack_quickstart(settings)
    pack_images([settings] if runs is None else runs)
