"""Weights & Biases on rank 0; errors of tracking do not stop a run."""

from __future__ import annotations

import logging
import netrc
import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from fourds_dist.config.section import ConfigSection
from fourds_dist.io.error_text import one_line
from fourds_dist.io.storage import is_local, locate
from fourds_dist.runs.events import EpochEnded, Event, Note, StageEnded, StageStopped, StepLogged
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.run_folder import RunFolder

PROJECT = "fourds_dist"
OBEYED = (
    "WANDB_MODE",
    "WANDB_DISABLED",
    "WANDB_PROJECT",
    "WANDB_ENTITY",
    "WANDB_RUN_GROUP",
    "WANDB_TAGS",
    "WANDB_NOTES",
    "WANDB_JOB_TYPE",
    "WANDB_BASE_URL",
)
"""Variables of W&B that are passed to workers on other machines; API keys have to exist there."""
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")

Mode = Literal["online", "offline", "disabled"]
_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}

VALIDATION_NAMES = {
    "val": "accuracy",
    "val_loss": "loss",
    "val_mean_per_class": "mean_per_class",
    "val_macro_f1": "macro_f1",
}
"""Fields of `Validation` by the prefix of their names in W&B."""

log = logging.getLogger(__name__)


class TrackingConfig(ConfigSection):
    """Weights & Biases."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: the mode of WANDB_MODE and WANDB_DISABLED. Without these, online if there is an API key for the server
    (WANDB_BASE_URL), and otherwise offline, under the run's folder."""

    project: str | None = None
    """W&B project; null: WANDB_PROJECT, or else fourds_dist."""

    entity: str | None = None
    """W&B user or team; null: WANDB_ENTITY, or else the default of the API key."""

    group: str | None = None
    """W&B group; null: WANDB_RUN_GROUP, or else the run's name, which groups its stages."""

    tags: tuple[str, ...] = ()
    """W&B tags; []: those of WANDB_TAGS (separated by commas)."""


def automatic_mode() -> Mode:
    """Return the mode of `tracking.wandb=auto` in this environment."""
    if os.environ.get("WANDB_DISABLED", "").strip().lower() in ("1", "true", "yes", "y", "on", "t"):
        return "disabled"
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if asked in _MODES:
        return _MODES[asked]
    if asked:
        log.warning("WANDB_MODE=%s is not one of %s and is ignored", asked, ", ".join(_MODES))
    return "online" if any(map(os.environ.get, KEYS)) or _has_netrc_key() else "offline"


def _tags_of_environment() -> list[str]:
    """Return the tags of WANDB_TAGS, which W&B reads only when it is set up, once a process."""
    return [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]


class Wandb:
    """Sink that sends events to one W&B run per stage; the first error is logged and ends tracking.

    If the server cannot be reached, the stage continues offline. The files of an offline run are under the run's
    folder. If that folder is in a store, the files are on this machine and are copied to the store at the end of the
    stage.
    """

    def __init__(
        self, config: TrackingConfig, folder: RunFolder, stage: str, settings: dict[str, Any]
    ) -> None:
        self._run: Any = None
        self._folder, self._scratch = folder, None
        mode = automatic_mode() if config.wandb == "auto" else config.wandb
        if mode == "disabled":
            return
        try:
            name = folder.url.rpartition("/")[2]
            fs, path = locate(folder.url)
            if not is_local(fs):
                path = self._scratch = tempfile.mkdtemp(prefix="fourds-wandb-")
            self._options: dict[str, Any] = {
                "project": config.project or os.environ.get("WANDB_PROJECT") or PROJECT,
                "entity": config.entity or os.environ.get("WANDB_ENTITY") or None,
                "group": config.group or os.environ.get("WANDB_RUN_GROUP") or name,
                "name": f"{name}/{stage}",
                "id": _run_id(folder, stage),
                "resume": "allow",
                "tags": list(config.tags) or _tags_of_environment(),
                "config": settings,
                "dir": path,
            }
            self._start(mode)
        except Exception as error:
            self._disable(error)

    def __call__(self, event: Event) -> None:
        """Log one event at its step; the last event of a stage finishes the W&B run."""
        if self._run is None:
            return
        try:
            self._run.log(flat_values(event), step=event.step)
            if isinstance(event, StageEnded | StageStopped):
                self._run.finish()
                self._copy_files()
        except Exception as error:
            self._disable(error)

    def _start(self, mode: Mode) -> None:
        # W&B refuses other spellings in WANDB_MODE (OFFLINE), even with an explicit mode.
        before = os.environ.get("WANDB_MODE")
        if before is not None:
            os.environ["WANDB_MODE"] = mode
        try:
            self._start_run(mode)
        finally:
            if before is not None:
                os.environ["WANDB_MODE"] = before

    def _start_run(self, mode: Mode) -> None:
        import wandb

        quiet = wandb.Settings(silent=True, console="off", init_timeout=30)
        try:
            self._run = wandb.init(mode=mode, settings=quiet, **self._options)
        except Exception as error:
            if mode != "online":
                raise
            if isinstance(error, wandb.Error):
                wandb.teardown()  # W&B's process retains the id of the run that failed to start
            try:
                self._run = wandb.init(mode="offline", settings=quiet, **self._options)
            except Exception:
                raise error from None
            log.warning(
                "W&B cannot be reached; this stage is tracked offline (`wandb sync` uploads it later): %s",
                one_line(error),
            )

    def _copy_files(self) -> None:
        """Copy the files of an offline run to the run's folder in its store."""
        if self._scratch is None:
            return
        import wandb

        if wandb.run is None:  # no other W&B run in this process
            wandb.teardown()  # waits for W&B's process, which writes after `finish` has returned
        root = Path(self._scratch)
        for file in sorted(root.glob("wandb/offline-run-*/**/*")):
            if file.is_file() and not file.is_symlink():
                fs, path = locate(self._folder.path(file.relative_to(root).as_posix()))
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                fs.put_file(str(file), path)
        shutil.rmtree(root, ignore_errors=True)
        self._scratch = None

    def _disable(self, error: Exception) -> None:
        files = (
            f"; its files so far are in {self._scratch}"
            if self._scratch and any(Path(self._scratch).iterdir())
            else ""
        )
        log.warning("W&B tracking is off for the rest of this stage: %s%s", one_line(error), files)
        if self._scratch and not files:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._run = None


def flat_values(event: Event) -> dict[str, Any]:
    """Return the numbers of an event by their names in W&B: `lr/student`, `val/student`, `data_wait_share`.

    The text of a note is under `note`.
    """
    values: dict[str, Any] = {
        name: value for name, value in vars(event).items() if isinstance(value, int | float)
    }
    match event:
        case StepLogged():
            shares = {f"{name}_share": share for name, share in vars(event.shares).items()}
            values |= event.losses | {name: share for name, share in shares.items() if share is not None}
            values |= {f"lr/{name}": rate for name, rate in event.learning_rates.items()}
            values |= event.method_values
        case EpochEnded():
            for prefix, field in VALIDATION_NAMES.items():
                found = {network: getattr(measured, field) for network, measured in event.validation.items()}
                values |= {f"{prefix}/{name}": value for name, value in found.items() if value is not None}
            for name, measured in event.validation.items():
                values |= {f"val_{by}/{name}": value for by, value in measured.criteria.items()}
        case Note() | StageStopped():
            values["note"] = event.text
    return values


def _run_id(folder: RunFolder, stage: str) -> str:
    """Return the W&B id of a stage, random at its first start and stored in the run's folder, as names may repeat."""
    ids = folder.read_json(RunFile.WANDB_IDS) if folder.exists(RunFile.WANDB_IDS) else {}
    if stage not in ids:
        ids[stage] = uuid.uuid4().hex[:12]
        folder.write_json(RunFile.WANDB_IDS, ids)
    return ids[stage]


def _has_netrc_key() -> bool:
    """Whether netrc has a key for W&B's server."""
    server = urlsplit(_base_url())
    own = os.environ.get("NETRC")
    files = [Path(own)] if own else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        with suppress(OSError, netrc.NetrcParseError):
            hosts = netrc.netrc(str(file)).hosts
            if server.netloc in hosts or server.hostname in hosts:
                return True
    return False


def _base_url() -> str:
    """Return the URL of W&B's server from W&B's settings."""
    if given := os.environ.get("WANDB_BASE_URL"):
        return given
    try:
        import wandb

        return wandb.setup(wandb.Settings(silent=True)).settings.base_url
    except Exception:  # W&B reports an invalid environment later
        return "https://api.wandb.ai"
