"""Weights & Biases, from rank 0; a run never fails because tracking did."""

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

from fourds_dist.config import Section
from fourds_dist.runs.events import EpochEnded, Event, Note, StageEnded, StageStopped, StepLogged
from fourds_dist.runs.layout import RunFile
from fourds_dist.storage import is_local, locate
from fourds_dist.training.run_folder import RunFolder

PROJECT = "fourds_dist"
OBEYED = (
    "WANDB_MODE",
    "WANDB_DISABLED",
    "WANDB_PROJECT",
    "WANDB_ENTITY",
    "WANDB_RUN_GROUP",
    "WANDB_BASE_URL",
)
"""Variables of W&B that also hold for workers on other machines; keys have to be there already."""
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

VALIDATION_NAMES = {"val": "accuracy", "val_loss": "loss", "val_mean_per_class": "mean_per_class"}
"""Prefix of a name in W&B -> field of `Validation`."""

log = logging.getLogger(__name__)


class TrackingConfig(Section):
    """Weights & Biases."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: as WANDB_MODE and WANDB_DISABLED say; where they say nothing, online if an API key is found for the
    server (WANDB_BASE_URL), and offline, under the run's folder, otherwise."""

    project: str | None = None
    """W&B project; null: WANDB_PROJECT, or else fourds_dist."""

    entity: str | None = None
    """W&B user or team; null: WANDB_ENTITY, or else the key's own."""

    group: str | None = None
    """W&B group; null: WANDB_RUN_GROUP, or else the run's name, so that its stages stand together."""

    tags: tuple[str, ...] = ()
    """W&B tags."""


def automatic_mode() -> Mode:
    """What `tracking.wandb=auto` means here."""
    if os.environ.get("WANDB_DISABLED", "").strip().lower() in ("1", "true", "yes", "y", "on", "t"):
        return "disabled"
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if asked in _MODES:
        return _MODES[asked]
    if asked:
        log.warning("WANDB_MODE=%s is none of %s; it is left aside", asked, ", ".join(_MODES))
    return "online" if any(map(os.environ.get, KEYS)) or _has_netrc_key() else "offline"


class Wandb:
    """Sends events to one W&B run per stage; after the first failure it says so once and keeps quiet.

    Where the server cannot be reached, the stage goes on offline. The files of an offline run lie under the run's
    folder; for a folder in a store they lie on this machine until the stage ends, and are then copied there.
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
            fs, place = locate(folder.url)
            if not is_local(fs):
                place = self._scratch = tempfile.mkdtemp(prefix="fourds-wandb-")
            self._options: dict[str, Any] = {
                "project": config.project or os.environ.get("WANDB_PROJECT") or PROJECT,
                "entity": config.entity or os.environ.get("WANDB_ENTITY") or None,
                "group": config.group or os.environ.get("WANDB_RUN_GROUP") or name,
                "name": f"{name}/{stage}",
                "id": _run_id(folder, stage),
                "resume": "allow",
                "tags": list(config.tags),
                "config": settings,
                "dir": place,
            }
            self._start(mode)
        except Exception as error:
            self._give_up(error)

    def __call__(self, event: Event) -> None:
        """Log one event at its step; the last one closes the run."""
        if self._run is None:
            return
        try:
            self._run.log(flat_values(event), step=event.step)
            if isinstance(event, StageEnded | StageStopped):
                self._run.finish()
                self._copy_files()
        except Exception as error:
            self._give_up(error)

    def _start(self, mode: Mode) -> None:
        # W&B refuses other spellings than its own (OFFLINE) though a mode is given to it.
        was = os.environ.get("WANDB_MODE")
        if was is not None:
            os.environ["WANDB_MODE"] = mode
        try:
            self._start_run(mode)
        finally:
            if was is not None:
                os.environ["WANDB_MODE"] = was

    def _start_run(self, mode: Mode) -> None:
        import wandb

        quiet = wandb.Settings(silent=True, console="off", init_timeout=30)
        try:
            self._run = wandb.init(mode=mode, settings=quiet, **self._options)
        except Exception as error:
            if mode != "online":
                raise
            if isinstance(error, wandb.Error):
                wandb.teardown()  # W&B's own process holds the id of the run that could not be started
            try:
                self._run = wandb.init(mode="offline", settings=quiet, **self._options)
            except Exception:
                raise error from None
            log.warning(
                "W&B cannot be reached, and this stage goes on offline (`wandb sync` sends it later): %s",
                _short(error),
            )

    def _copy_files(self) -> None:
        """Put the files of an offline run into the run's folder in its store."""
        if self._scratch is None:
            return
        import wandb

        if wandb.run is None:  # the caller has no run of its own in this process
            wandb.teardown()  # W&B's process writes after `finish` has returned; this waits for its end
        root = Path(self._scratch)
        for file in sorted(root.glob("wandb/offline-run-*/**/*")):
            if file.is_file() and not file.is_symlink():
                fs, path = locate(self._folder.path(file.relative_to(root).as_posix()))
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                fs.put_file(str(file), path)
        shutil.rmtree(root, ignore_errors=True)
        self._scratch = None

    def _give_up(self, error: Exception) -> None:
        left = (
            f"; its files so far are in {self._scratch}"
            if self._scratch and any(Path(self._scratch).iterdir())
            else ""
        )
        log.warning("W&B tracking is off for the rest of this stage: %s%s", _short(error), left)
        if self._scratch and not left:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._run = None


def flat_values(event: Event) -> dict[str, Any]:
    """The numbers of an event by the names that W&B has for them: `lr/student`, `val/student`, `data_wait_share`.

    Notes come as text under `note`.
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
        case Note() | StageStopped():
            values["note"] = event.text
    return values


def _run_id(folder: RunFolder, stage: str) -> str:
    """Drawn at the stage's first start and kept in the run's folder: names alone may be another run's too."""
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
    """Address of W&B's server, as its own settings have it."""
    if given := os.environ.get("WANDB_BASE_URL"):
        return given
    try:
        import wandb

        return wandb.setup(wandb.Settings(silent=True)).settings.base_url
    except Exception:  # also of an environment that W&B does not accept, which it tells itself later
        return "https://api.wandb.ai"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
