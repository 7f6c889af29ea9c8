"""MLflow: one MLflow run per stage, with parameters, metrics by step, tags, and at the end the report and the student.

The store is that of MLFLOW_TRACKING_URI. The id of each MLflow run is in the run's folder, so that a resumed stage
continues its MLflow run.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fourds_dist.config.trees import flatten
from fourds_dist.io.error_text import one_line
from fourds_dist.io.storage import locate
from fourds_dist.runs.events import Event, StageEnded, StageStopped
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.sinks.tracked_values import flat_values
from fourds_dist.stages.sinks.tracking_config import PROJECT, TrackingConfig, group_of, tags_of

URI = "MLFLOW_TRACKING_URI"
OBEYED = (URI, "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH")
"""Variables of MLflow that are passed to workers on other machines; passwords and tokens have to exist there."""
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Values of MLflow's variables if they are not set. MLflow's own let a failure take several minutes."""
MOST_PARAMETERS = 100
"""Parameters of one request."""
MOST_CHARACTERS = 500
"""Length of a parameter's value."""
MOST_ARTIFACT_BYTES = 100 << 20

log = logging.getLogger(__name__)


class Mlflow:
    """Sink that sends events to the MLflow run of a stage, and starts or continues that run."""

    def __init__(
        self, config: TrackingConfig, folder: RunFolder, stage: str, settings: Mapping[str, Any]
    ) -> None:
        self._client = _client()
        name = folder.url.rpartition("/")[2]
        tags = {"group": group_of(config, name), "stage": stage, "mlflow.runName": f"{name}/{stage}"}
        for tag in tags_of(config):
            key, _, value = tag.partition("=")
            tags[key.strip()] = value.strip()
        ids = folder.read_json(RunFile.MLFLOW_IDS) if folder.exists(RunFile.MLFLOW_IDS) else {}
        run = self._existing(ids.get(stage))
        if run is None:
            run = self._client.create_run(self._experiment(config), tags=tags, run_name=f"{name}/{stage}")
            folder.write_json(RunFile.MLFLOW_IDS, {**ids, stage: run.info.run_id})
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
        self._id: str = run.info.run_id
        self._log_parameters(settings, run.data.params)

    def __call__(self, event: Event) -> None:
        """Log one event at its step; the last event of a stage ends the MLflow run."""
        entities = import_module("mlflow.entities")
        values = flat_values(event)
        metrics = [
            entities.Metric(_key(name), float(value), round(event.time * 1000), event.step)
            for name, value in values.items()
            if not isinstance(value, str) and name not in ("step", "time")
        ]
        self._client.log_batch(self._id, metrics=metrics)
        if "note" in values:
            self._client.set_tag(self._id, "note", values["note"])
        if isinstance(event, StageEnded | StageStopped):
            status = "FINISHED" if isinstance(event, StageEnded) else "KILLED"
            self._client.set_terminated(self._id, status=status)

    def _existing(self, run_id: str | None) -> Any:
        """Return a run of the store; None: the store has no such run, or the run was deleted."""
        errors = import_module("mlflow.exceptions")
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except errors.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _experiment(self, config: TrackingConfig) -> str:
        """Return the id of the experiment, which is created if the store lacks it."""
        errors = import_module("mlflow.exceptions")
        name = config.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name)
            except errors.MlflowException:  # another run has created the experiment meanwhile
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def _log_parameters(self, settings: Mapping[str, Any], existing: Mapping[str, str]) -> None:
        """Log the configuration by dotted keys; MLflow refuses other values for existing parameters."""
        entities = import_module("mlflow.entities")
        flat = {_key(name): str(value)[:MOST_CHARACTERS] for name, value in flatten(dict(settings))}
        new = [entities.Param(name, value) for name, value in flat.items() if name not in existing]
        for start in range(0, len(new), MOST_PARAMETERS):
            self._client.log_batch(self._id, params=new[start : start + MOST_PARAMETERS])


def log_results(folder: RunFolder) -> None:
    """Add the report and the student to the MLflow run of the last stage; errors are logged and not raised."""
    try:
        ids = folder.read_json(RunFile.MLFLOW_IDS) if folder.exists(RunFile.MLFLOW_IDS) else {}
        if "distill" not in ids:
            return
        client = _client()
        with tempfile.TemporaryDirectory() as here:
            for file in (RunFile.REPORT, RunFile.STUDENT):
                fs, path = locate(folder.path(file))
                if fs.exists(path) and (fs.size(path) or 0) <= MOST_ARTIFACT_BYTES:
                    fs.get_file(path, str(Path(here, file)))
                    client.log_artifact(ids["distill"], str(Path(here, file)))
    except Exception as error:
        log.warning("the report and the student are not in MLflow: %s", one_line(error))


def _client() -> Any:
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    return import_module("mlflow").MlflowClient(os.environ[URI])


def _key(name: str) -> str:
    """Return a name of characters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", name)
