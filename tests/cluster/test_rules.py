"""Each rule of cluster/validate refuses what it is for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.validate import agreement, kuberay, policy, schemas
from cluster.validate.render import Object


def at(object_: Object, path: str) -> Any:
    """A place inside an object, by its path."""
    for step in path.split("."):
        object_ = object_[int(step)] if isinstance(object_, list) else object_[step]
    return object_


CLUSTER = "spec.rayClusterSpec"
HEAD = f"{CLUSTER}.headGroupSpec"
GROUP = f"{CLUSTER}.workerGroupSpecs.0"
WORKER = f"{GROUP}.template.spec"
CONTAINER = f"{WORKER}.containers.0"


def put(place: str, **values: Any) -> Callable[[Object], None]:
    """A change: values into a place."""
    return lambda job: at(job, place).update(copy.deepcopy(values)) if place else job.update(values)


def drop(place: str, key: str) -> Callable[[Object], None]:
    """A change: a key taken away."""
    return lambda job: at(job, place).pop(key)


KUBERAY = [
    (put("metadata", name="n" * 48), "48 characters, 47"),
    (put("metadata", name="4ds"), "begin with a letter"),
    (put("spec", submissionMode="K8SJobMode"), "none of K8sJobMode"),
    (put("spec", clusterSelector={"ray.io/cluster": "c"}), "exactly one of"),
    (put("spec", submissionMode="InteractiveMode"), "backoffLimit"),
    (put("spec", submissionMode="SidecarMode"), "SidecarMode"),
    (put("spec", shutdownAfterJobFinishes=False), "shutdownAfterJobFinishes"),
    (put("spec", deletionStrategy={"deletionRules": [{}]}), "exclude each other"),
    (put("spec", activeDeadlineSeconds=0), "positive"),
    (put("spec", runtimeEnvYAML="a: [b"), "not YAML"),
    (drop(GROUP, "minReplicas"), "minReplicas and maxReplicas"),
    (put(GROUP, replicas=9), "minReplicas <= replicas"),
    (put(GROUP, idleTimeoutSeconds=60), "version 2"),
    (put(f"{GROUP}.rayStartParams", **{"num-cpus": 4}), "has to be a string"),
    (put(f"{HEAD}", resources={"CPU": "1"}), "both say"),
    (put(f"{GROUP}.rayStartParams", labels="a=b"), "labels belong"),
    (put(CLUSTER, rayVersion="2.51.1"), "2.52 or newer"),
    (put(f"{CLUSTER}.authOptions", enableK8sTokenAuth=True), "for RayClusters"),
    (put(CLUSTER, networkPolicy={}), "off by default"),
    (put(CLUSTER, gcsFaultToleranceOptions={"backend": "rocksdb"}), "rocksdb"),
    (
        lambda job: at(job, f"{HEAD}.template.spec.containers.0.env").append(
            {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}
        ),
        "belong into gcsFaultToleranceOptions",
    ),
]


@pytest.mark.parametrize(("change", "told"), KUBERAY, ids=[told for _, told in KUBERAY])
def test_kuberay_s_rules(
    change: Callable[[Object], None], told: str, rendered: dict[str, list[Object]]
) -> None:
    job = copy.deepcopy(next(o for o in rendered["gpu"] if o["kind"] == "RayJob"))
    assert list(kuberay.problems(job)) == []
    change(job)
    assert any(told in text for text in kuberay.problems(job)), list(kuberay.problems(job))


def test_an_autoscaler_replaces_pods(rendered: dict[str, list[Object]]) -> None:
    job = copy.deepcopy(next(o for o in rendered["gpu-spot"] if o["kind"] == "RayJob"))
    at(job, WORKER)["restartPolicy"] = "Always"
    assert any("restartPolicy Never" in text for text in kuberay.problems(job))


def test_kueue_wants_a_fixed_number_of_pods(rendered: dict[str, list[Object]]) -> None:
    job = copy.deepcopy(next(o for o in rendered["gpu-spot"] if o["kind"] == "RayJob"))
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "fourds"
    assert any("fixed number of pods" in text for text in kuberay.problems(job))


def test_schedules(rendered: dict[str, list[Object]]) -> None:
    cron = copy.deepcopy(next(o for o in rendered["nightly"] if o["kind"] == "RayCronJob"))
    assert list(kuberay.problems(cron)) == []
    cron["metadata"]["name"] = "n" * 37
    cron["spec"] |= {"schedule": "0 2 * *", "timeZone": "Mars/Olympus"}
    told = "\n".join(kuberay.problems(cron))
    assert "36 are allowed" in told
    assert "five fields" in told
    assert "Mars/Olympus" in told


POLICY = [
    (put(WORKER, hostNetwork=True), "hostNetwork is not allowed"),
    (lambda job: at(job, f"{WORKER}.volumes").append({"name": "c", "hostPath": {"path": "/"}}), "volume c"),
    (drop(f"{WORKER}.securityContext", "runAsNonRoot"), "runAsNonRoot"),
    (put(f"{CONTAINER}.securityContext", runAsUser=0), "runs as root"),
    (drop(f"{WORKER}.securityContext", "seccompProfile"), "seccompProfile"),
    (drop(f"{CONTAINER}.securityContext", "allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    (
        put(f"{CONTAINER}.securityContext", capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
        "capabilities",
    ),
    (put(f"{CONTAINER}.securityContext", readOnlyRootFilesystem=False), "can be written"),
    (drop(CONTAINER, "resources"), "are missing"),
    (put(f"{CONTAINER}.resources.requests", memory="1Gi"), "requested and allowed differ"),
    (put(CONTAINER, image="fourds-dist:latest"), "no tag"),
    (lambda job: at(job, f"{CONTAINER}.env").append({"name": "WANDB_API_KEY", "value": "x"}), "written out"),
    (put(WORKER, automountServiceAccountToken=True), "for nobody else"),
    (drop(WORKER, "priorityClassName"), "priorityClassName"),
    (put(WORKER, terminationGracePeriodSeconds=100), "no time for a drain of 100 s"),
    (lambda job: at(job, f"{CONTAINER}.volumeMounts").pop(2), "/dev/shm"),
    (drop(f"{HEAD}.rayStartParams", "num-cpus"), "head takes work"),
    (drop(CLUSTER, "authOptions"), "anyone who reaches"),
    (drop("spec", "submitterConfig"), "submitterConfig"),
    (drop("spec", "preRunningDeadlineSeconds"), "wait for ever"),
    (put("spec", entrypoint="KEY=AKIAABCDEFGHIJKLMNOP python"), "looks like a key"),
]


@pytest.mark.parametrize(("change", "told"), POLICY, ids=[told for _, told in POLICY])
def test_policy(change: Callable[[Object], None], told: str, rendered: dict[str, list[Object]]) -> None:
    job = copy.deepcopy(next(o for o in rendered["gpu"] if o["kind"] == "RayJob"))
    assert list(policy.problems(job)) == []
    change(job)
    assert any(told in text for text in policy.problems(job)), list(policy.problems(job))


def test_the_autoscaler_s_container_is_checked(rendered: dict[str, list[Object]]) -> None:
    job = copy.deepcopy(next(o for o in rendered["gpu-spot"] if o["kind"] == "RayJob"))
    del at(job, f"{CLUSTER}.autoscalerOptions")["securityContext"]
    assert any("container autoscaler" in text for text in policy.problems(job))


AGREEMENT = [
    ("launch: { workers: 5, use_gpu: true, cpus_per_worker: 8 }", "5 do not fit; the pods have room for 4"),
    ("launch: { workers: 2, use_gpu: true, cpus_per_worker: 8 }", "leave room for 4 unused"),
    ("launch: { workers: 4, use_gpu: true, cpus_per_worker: 16 }", "4 do not fit; the pods have room for 2"),
    ("launch: { workers: 4, cpus_per_worker: 8 }", "use_gpu should be true"),
    ("run: { dir: runs }", "neither a store's URL"),
    ("data: { cache_dir: /scratch }", "no volume of the workers"),
    ("launch: { worker: 4 }", "did you mean"),
]


@pytest.mark.parametrize(("text", "told"), AGREEMENT, ids=[told for _, told in AGREEMENT])
def test_run_and_pods_agree(text: str, told: str, rendered: dict[str, list[Object]]) -> None:
    objects = copy.deepcopy(rendered["gpu"])
    assert list(agreement.problems(objects)) == []
    next(o for o in objects if o["kind"] == "ConfigMap")["data"]["run.yaml"] = text
    assert any(told in problem for problem in agreement.problems(objects)), list(agreement.problems(objects))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("max_concurrent_trials: 8", "max_concurrent_trials: 2", "leave room for 8 unused"),
        ("adapter_reduction", "adapter_reductoin", "did you mean"),
        ("search: optuna", "search: opt", "search"),
    ],
)
def test_sweep_and_pods_agree(old: str, new: str, told: str, rendered: dict[str, list[Object]]) -> None:
    objects = copy.deepcopy(rendered["sweep"])
    assert list(agreement.problems(objects)) == []
    files = next(o for o in objects if o["kind"] == "ConfigMap")["data"]
    files["sweep.yaml"] = files["sweep.yaml"].replace(old, new)
    assert any(told in problem for problem in agreement.problems(objects)), list(agreement.problems(objects))


def test_a_job_without_configuration(rendered: dict[str, list[Object]]) -> None:
    objects = [o for o in rendered["gpu"] if o["kind"] != "ConfigMap"]
    assert any("no run.yaml" in text for text in agreement.problems(objects))


def test_kubernetes_schemas_see_into_the_pods(rendered: dict[str, list[Object]]) -> None:
    job = copy.deepcopy(next(o for o in rendered["gpu"] if o["kind"] == "RayJob"))
    at(job, WORKER)["terminationGraceSeconds"] = 1
    assert any("terminationGraceSeconds" in text for text in schemas.kubernetes_problems(job))


def test_kuberay_schemas_refuse_unknown_fields(
    rendered: dict[str, list[Object]], kuberay_schemas: Path
) -> None:
    job = copy.deepcopy(next(o for o in rendered["gpu"] if o["kind"] == "RayJob"))
    job["spec"]["backofLimit"] = 1
    assert any("backofLimit" in text for text in schemas.kuberay_problems(job, kuberay_schemas))


def test_missing_schemas_are_named(rendered: dict[str, list[Object]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"RayJob\.v1\.schema\.json"):
        list(schemas.kuberay_problems(rendered["gpu"][1], tmp_path))
