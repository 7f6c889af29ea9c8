"""What the trials of a sweep under Ray Tune share: teachers, each trained once, and the stop request of the driver."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import ray

from fourds_dist.config.loading import dump
from fourds_dist.launch.ray.train import NonRetryableError, run_stage_on_ray
from fourds_dist.runs.events import Event
from fourds_dist.runs.failures import StopReason
from fourds_dist.runs.layout import DONE, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.run_identity import started_with_network_inputs
from fourds_dist.stages.settings import Settings
from fourds_dist.training.stop_signals import Stopped

MOST_TEACHERS = 16
"""Source stages at once."""


@ray.remote(num_cpus=0)
class TeacherPool:
    """Trains teachers; the actor exists as long as the driver of the sweep.

    A failed source stage is repeated for the next trial that needs the teacher, unless the failure is permanent.
    """

    def __init__(self) -> None:
        self._futures: dict[str, asyncio.Future[None]] = {}
        self._threads = ThreadPoolExecutor(MOST_TEACHERS)
        self._events: list[tuple[str, Event]] = []
        self._stop_reason: StopReason | None = None

    async def teacher(self, settings_json: str) -> str | None:
        """Return the folder of a run once its source stage is done, training the stage if nobody has begun to.

        None: the sweep ends before the stage does.
        """
        settings = Settings.model_validate_json(settings_json)
        url = settings.run_url
        if url not in self._futures:
            loop = asyncio.get_running_loop()
            self._futures[url] = loop.run_in_executor(self._threads, self._train, settings)
        try:
            await asyncio.shield(self._futures[url])
        except Stopped:
            return None
        except NonRetryableError:
            raise
        except Exception:
            self._futures.pop(url, None)
            raise
        return url

    async def end(self, reason: StopReason) -> None:
        """Stop all trials with a checkpoint."""
        self._stop_reason = reason

    async def stop_reason(self) -> StopReason | None:
        """Why trials have to leave; None: they do not."""
        return self._stop_reason

    async def take_events(self) -> list[tuple[str, Event]]:
        """Return events of source stages since the last call, each with the name of its run."""
        events, self._events = self._events, []
        return events

    def _train(self, settings: Settings) -> None:
        folder = RunFolder(settings.run_url)
        if folder.exists(DONE["source"]):
            return
        settings = started_with_network_inputs(settings)
        folder.write_text(RunFile.CONFIG, dump(settings))
        name = settings.run.name

        def show(event: Event) -> None:
            self._events.append((name, event))

        run_stage_on_ray("source", settings, show, lambda: self._stop_reason)
