"""Rules that KubeRay's operator applies beyond its schemas: it accepts the object and then refuses to act on it.

From ray-operator/controllers/ray/utils/validation.go of KubeRay 1.7, and Kueue's page on RayJobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from cluster.validate.pods import cluster_spec_of, job_spec_of
from cluster.validate.render import Object

NAME_LIMITS = {"RayJob": 47, "RayCluster": 53, "RayCronJob": 36}
SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
GATED = {"networkPolicy": "RayClusterNetworkPolicy", "tlsOptions": "RayClusterMTLS"} | {
    "historyServerOptions": "RayClusterHistoryServer"
}
"""Fields of a cluster behind a feature gate that is off by default."""


def problems(object_: Object) -> Iterator[str]:
    """All rules that an object of KubeRay's breaks."""
    kind = object_["kind"]
    if kind not in NAME_LIMITS:
        return
    yield from _name(kind, object_["metadata"]["name"])
    if kind == "RayCronJob":
        yield from _schedule(object_["spec"])
    job, cluster = job_spec_of(object_), cluster_spec_of(object_)
    if job is not None:
        yield from _job(job)
    if cluster is not None:
        yield from _head(cluster)
        yield from _groups(cluster)
        yield from _autoscaler(cluster)
        yield from _authentication(cluster, is_job=job is not None)
        yield from _gcs(cluster)
        yield from (
            f"{key} needs the gate {gate}, off by default" for key, gate in GATED.items() if key in cluster
        )
    if "kueue.x-k8s.io/queue-name" in object_["metadata"].get("labels", {}):
        yield from _kueue(job, cluster)


def _name(kind: str, name: str) -> Iterator[str]:
    if len(name) > NAME_LIMITS[kind]:
        yield f"the name has {len(name)} characters, {NAME_LIMITS[kind]} are allowed"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield "the name has to begin with a letter and hold lower-case letters, digits and hyphens only"


def _schedule(spec: Object) -> Iterator[str]:
    if "TZ" in spec["schedule"]:
        yield "schedule: the time zone belongs into timeZone"
    elif not re.fullmatch(r"@\w+|(\S+ ){4}\S+", spec["schedule"]):
        yield f"schedule: {spec['schedule']!r} has not five fields"
    if "timeZone" in spec:
        try:
            ZoneInfo(spec["timeZone"])
        except (ZoneInfoNotFoundError, ValueError):
            yield f"timeZone: {spec['timeZone']!r} is unknown"


def _job(job: Object) -> Iterator[str]:
    mode = job.get("submissionMode", "K8sJobMode")
    if mode not in SUBMISSION_MODES:
        yield f"submissionMode: {mode!r} is none of {', '.join(SUBMISSION_MODES)}"
    selects = bool(job.get("clusterSelector"))
    if selects == ("rayClusterSpec" in job):
        yield "exactly one of rayClusterSpec and clusterSelector has to be there"
    if job.get("backoffLimit", 0) > 0 and (selects or mode == "InteractiveMode"):
        yield "backoffLimit: neither with clusterSelector nor in InteractiveMode"
    if mode == "SidecarMode" and ("submitterPodTemplate" in job or "submitterConfig" in job or selects):
        yield "SidecarMode: without submitterPodTemplate, submitterConfig and clusterSelector"
    if not job.get("shutdownAfterJobFinishes") and (job.get("ttlSecondsAfterFinished") or job.get("suspend")):
        yield "ttlSecondsAfterFinished and suspend need shutdownAfterJobFinishes: true"
    if job.get("shutdownAfterJobFinishes") and job.get("deletionStrategy", {}).get("deletionRules"):
        yield "deletionRules and shutdownAfterJobFinishes exclude each other"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if job.get(key, 1) <= 0:
            yield f"{key} has to be positive"
    try:
        yaml.safe_load(job.get("runtimeEnvYAML", ""))
    except yaml.YAMLError:
        yield "runtimeEnvYAML is not YAML"


def _head(cluster: Object) -> Iterator[str]:
    head = cluster["headGroupSpec"]
    yield from _start_parameters("head", head)
    if not cluster.get("enableInTreeAutoscaling") and _env(head).get("RAY_enable_autoscaler_v2") in (
        "1",
        "true",
    ):
        yield "head: RAY_enable_autoscaler_v2 without enableInTreeAutoscaling"


def _groups(cluster: Object) -> Iterator[str]:
    scales = bool(cluster.get("enableInTreeAutoscaling"))
    for group in cluster.get("workerGroupSpecs", []):
        name = f"group {group['groupName']}"
        yield from _start_parameters(name, group)
        low, high = group.get("minReplicas"), group.get("maxReplicas")
        if not scales and None in (low, high):
            yield f"{name}: without an autoscaler, minReplicas and maxReplicas have to be there"
        elif not 0 <= (low or 0) <= group.get("replicas", low or 0) <= (high if high is not None else 2**31):
            yield f"{name}: not 0 <= minReplicas <= replicas <= maxReplicas"
        if group.get("idleTimeoutSeconds") is not None and not _is_v2(cluster):
            yield f"{name}: idleTimeoutSeconds needs the autoscaler's version 2"
        if group.get("suspend") and scales:
            yield f"{name}: cannot be suspended with an autoscaler"


def _start_parameters(name: str, group: Object) -> Iterator[str]:
    parameters = group.get("rayStartParams", {})
    for key, value in parameters.items():
        if not isinstance(value, str):
            yield f"{name}: rayStartParams.{key} has to be a string: {str(value)!r}"
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & parameters.keys():
        yield f"{name}: resources and rayStartParams both say what the node has"
    if "labels" in parameters:
        yield f"{name}: labels belong to the group, not into rayStartParams"


def _autoscaler(cluster: Object) -> Iterator[str]:
    if not _is_v2(cluster):
        return
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
        if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield "the autoscaler's version 2 needs restartPolicy Never, or none"
    if "RAY_enable_autoscaler_v2" in _env(cluster["headGroupSpec"]):
        yield "RAY_enable_autoscaler_v2 and autoscalerOptions.version exclude each other"


def _authentication(cluster: Object, *, is_job: bool) -> Iterator[str]:
    options = cluster.get("authOptions", {})
    version = tuple(int(part) for part in re.findall(r"\d+", cluster.get("rayVersion", "0"))[:2])
    if options.get("mode") == "token" and version < (2, 52):
        yield "authOptions: tokens need rayVersion 2.52 or newer"
    if options.get("enableK8sTokenAuth") and (is_job or options.get("secretName") or version < (2, 55)):
        yield "authOptions: enableK8sTokenAuth is for RayClusters of Ray 2.55 or newer, without secretName"


def _gcs(cluster: Object) -> Iterator[str]:
    options, environment = cluster.get("gcsFaultToleranceOptions"), _env(cluster["headGroupSpec"])
    taken = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"} & environment.keys()
    if taken:
        yield f"head: {', '.join(sorted(taken))} belong into gcsFaultToleranceOptions"
    if options is None:
        return
    if options.get("backend") == "rocksdb":
        yield "gcsFaultToleranceOptions: rocksdb needs the gate GCSFaultToleranceEmbeddedStorage, off by default"
    elif "storage" in options:
        yield "gcsFaultToleranceOptions: storage is rocksdb's"
    if "redis-password" in cluster["headGroupSpec"].get("rayStartParams", {}):
        yield "head: redis-password belongs into gcsFaultToleranceOptions"


def _kueue(job: Object | None, cluster: Object | None) -> Iterator[str]:
    if cluster is None or (job is not None and not job.get("shutdownAfterJobFinishes")):
        yield "Kueue takes jobs with a cluster of their own that goes with them"
        return
    if cluster.get("enableInTreeAutoscaling"):
        yield "Kueue reserves a fixed number of pods: not with an autoscaler"
    if len(cluster.get("workerGroupSpecs", [])) > 7:
        yield "Kueue takes seven groups of workers at most"


def _is_v2(cluster: Object) -> bool:
    return (
        bool(cluster.get("enableInTreeAutoscaling"))
        and cluster.get("autoscalerOptions", {}).get("version") == "v2"
    )


def _env(group: Object) -> dict[str, str | None]:
    container = group["template"]["spec"]["containers"][0]
    return {entry["name"]: entry.get("value") for entry in container.get("env", [])}
