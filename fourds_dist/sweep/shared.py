"""What the trials of a sweep share: teachers, each trained once, and the driver's wish to end."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from fourds_dist.config import dump
from fourds_dist.launch.ray_train import HopelessError, run_stage_on_ray
from fourds_dist.settings import Settings
from fourds_dist.training.run_folder import RunFolder
from fourds_dist.training.stages import DONE
from fourds_dist.training.stop import Stopped

MOST_TEACHERS = 16
"""Source stages at once."""


@ray.remote(num_cpus=0)
class Shared:
    """Lives as long as the sweep's driver.

    A source stage that fails is tried again by the next trial that asks, unless it would fail in the same way.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._threads = ThreadPoolExecutor(MOST_TEACHERS)
        self._rows: list[dict[str, Any]] = []
        self._wish: str | None = None

    async def teacher(self, settings_json: str) -> str | None:
        """The folder of a run with its source stage done: trained now, waited for, or there already.

        None: the sweep ends before that.
        """
        settings = Settings.model_validate_json(settings_json)
        url = settings.run_url
        if url not in self._under_way:
            loop = asyncio.get_running_loop()
            self._under_way[url] = loop.run_in_executor(self._threads, self._train, settings)
        try:
            await asyncio.shield(self._under_way[url])
        except Stopped:
            return None
        except HopelessError:
            raise
        except Exception:
            self._under_way.pop(url, None)
            raise
        return url

    async def end(self, reason: str) -> None:
        """Have all trials leave with a checkpoint."""
        self._wish = reason

    async def wish(self) -> str | None:
        """Why trials are to leave, if they are."""
        return self._wish

    async def take_rows(self) -> list[dict[str, Any]]:
        """Events of the source stages since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def _train(self, settings: Settings) -> None:
        folder = RunFolder(settings.run_url)
        if folder.exists(DONE["source"]):
            return
        folder.write_text("config.yaml", dump(settings))
        name = settings.run.name

        def show(row: dict[str, Any]) -> None:
            self._rows.append({**row, "run": name})

        run_stage_on_ray("source", settings, show, lambda: self._wish)
