"""Weights & Biases, from rank 0; a run never fails because tracking did."""

from __future__ import annotations

import logging
import os
import uuid
from typing import Any, Literal

from fourds_dist.config import Section
from fourds_dist.training.run_folder import RunFolder

WANDB_IDS = "wandb.json"

log = logging.getLogger(__name__)


class TrackingConfig(Section):
    """Weights & Biases."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online where an API key is found, offline (under the run's folder) otherwise."""

    project: str = "fourds_dist"
    """W&B project."""

    entity: str | None = None
    """W&B user or team; null: the key's own."""

    group: str | None = None
    """W&B group; null: the run's name, so that the two stages stand together."""

    tags: tuple[str, ...] = ()
    """W&B tags."""


class Wandb:
    """Sends events to one W&B run per stage; after the first failure it says so once and keeps quiet."""

    def __init__(
        self, config: TrackingConfig, folder: RunFolder, stage: str, settings: dict[str, Any]
    ) -> None:
        self._run: Any = None
        if config.wandb == "disabled":
            return
        try:
            import wandb

            mode = config.wandb
            if mode == "auto":
                mode = "online" if os.environ.get("WANDB_API_KEY") or _has_netrc_key() else "offline"
            name = folder.url.rpartition("/")[2]
            self._run = wandb.init(
                project=config.project,
                entity=config.entity,
                group=config.group or name,
                name=f"{name}/{stage}",
                id=_run_id(folder, stage),
                resume="allow",
                tags=list(config.tags),
                config=settings,
                mode=mode,
                dir=folder.url if folder.is_local else None,
                settings=wandb.Settings(silent=True, console="off", init_timeout=30),
            )
        except Exception as error:
            self._give_up(error)

    def __call__(self, row: dict[str, Any]) -> None:
        """Log one event at its step; the last one closes the run."""
        if self._run is None:
            return
        try:
            values: dict[str, Any] = {k: v for k, v in row.items() if isinstance(v, (int, float))}
            if row["event"] in ("note", "stopped"):
                values["note"] = row["text"]
            self._run.log(values, step=row.get("step"))
            if row["event"] in ("end", "stopped"):
                self._run.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.warning("W&B tracking is off for the rest of this stage: %s", " ".join(str(error).split())[:200])
        self._run = None


def _run_id(folder: RunFolder, stage: str) -> str:
    """Drawn at the stage's first start and kept in the run's folder: names alone may be another run's too."""
    ids = folder.read_json(WANDB_IDS) if folder.exists(WANDB_IDS) else {}
    if stage not in ids:
        ids[stage] = uuid.uuid4().hex[:12]
        folder.write_json(WANDB_IDS, ids)
    return ids[stage]


def _has_netrc_key() -> bool:
    import netrc

    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
