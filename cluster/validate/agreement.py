"""Whether a run's or a sweep's configuration and its pods agree: a GPU too few is else found out in the cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster.validate.pods import cluster_spec_of, job_spec_of
from cluster.validate.render import Object
from fourds_dist.config.loading import load
from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.sweep.plan import read_plan
from fourds_dist.stages.settings import Settings


def problems(objects: list[Object]) -> Iterator[str]:
    """What does not fit between the run.yaml of a folder and its job."""
    configurations = {o["metadata"]["name"]: o["data"] for o in objects if "run.yaml" in o.get("data", {})}
    for object_ in objects:
        cluster = cluster_spec_of(object_)
        if cluster is None or job_spec_of(object_) is None:
            continue
        used = [
            volume["configMap"]["name"]
            for volume in _volumes(cluster["headGroupSpec"])
            if "configMap" in volume
        ]
        if not any(name in configurations for name in used):
            yield f"no run.yaml for {object_['metadata']['name']}: a ConfigMap named fourds-run has to hold it"
        for name in used:
            if name in configurations:
                yield from _compare(configurations[name], cluster)


def _compare(files: dict[str, str], cluster: Object) -> Iterator[str]:
    try:
        settings, num_runs = _read(files)
    except ConfigError as error:
        yield f"run.yaml: {error}"
        return
    launch = settings.launch
    room_min, room_max = 0, 0
    scales = bool(cluster.get("enableInTreeAutoscaling"))
    num_gpus_all = 0
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        num_cpus, num_gpus = int(limits["cpu"]), int(limits.get("nvidia.com/gpu", 0))
        each = int(num_cpus / launch.cpus_per_worker)
        each = min(each, num_gpus) if num_gpus else each
        room_min += each * group["replicas"]
        room_max += each * (group["maxReplicas"] if scales else group["replicas"])
        num_gpus_all += num_gpus
        mounts = [m["mountPath"] for m in group["template"]["spec"]["containers"][0]["volumeMounts"]]
        if settings.data.cache_dir is not None and settings.data.cache_dir not in mounts:
            yield f"data.cache_dir: {settings.data.cache_dir} is no volume of the workers; add components/node-cache"
    if launch.min_workers > room_max or (launch.min_workers > room_min and not scales):
        yield f"launch.workers: {launch.min_workers} do not fit; the pods have room for {max(room_min, room_max)}"
    if num_runs and launch.max_workers * num_runs < room_max:
        yield f"launch.workers: {launch.max_workers * num_runs} leave room for {room_max} unused, and paid for"
    if num_gpus_all and launch.use_gpu is not True:
        yield "launch.use_gpu should be true: the run would begin on CPUs where no GPU has joined the cluster yet"
    if "://" not in settings.run.dir and not any(settings.run.dir.startswith(m) for m in _shared(cluster)):
        yield f"run.dir: {settings.run.dir} is neither a store's URL nor on a volume that head and workers share"


def _read(files: dict[str, str]) -> tuple[Settings, int | None]:
    """The run, or the one that a sweep varies, and how many there are at once; None: as many as there is room for."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        if "sweep.yaml" not in files:
            return load(Settings, Path(folder, "run.yaml")), 1
        plan = read_plan(Path(folder, "sweep.yaml"))
        return plan.run, plan.config.max_concurrent_trials


def _shared(cluster: Object) -> set[str]:
    """Where head and all groups mount claims."""
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    found = []
    for group in groups:
        claims = {v["name"] for v in _volumes(group) if "persistentVolumeClaim" in v}
        mounts = group["template"]["spec"]["containers"][0]["volumeMounts"]
        found.append({m["mountPath"] for m in mounts if m["name"] in claims})
    return set.intersection(*found)


def _volumes(group: Object) -> list[Object]:
    return group["template"]["spec"].get("volumes", [])
