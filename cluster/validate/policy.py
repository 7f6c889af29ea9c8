"""What pods may be: the restricted Pod Security Standard, and rules of our own that keep runs alive and keys secret."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cluster.validate.pods import Pod, cluster_spec_of, job_spec_of, pods_of
from cluster.validate.render import Object

VOLUMES = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)", re.IGNORECASE)
SECRET_TEXT = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|hf_\w{20,}|(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")


def problems(object_: Object) -> Iterator[str]:
    """All rules that an object and its pods break."""
    if object_["kind"] == "Secret":
        yield "a Secret in a manifest ends up in a repository: make it with kubectl or a secret store"
    if SECRET_TEXT.search(str(object_)):
        yield "something that looks like a key stands in the manifest"
    for pod in pods_of(object_):
        for text in (*_restricted(pod), *_resources(pod), *_secrets(pod), *_lasting(pod)):
            yield f"{pod.name}: {text}"
    yield from _ray(object_)


def _restricted(pod: Pod) -> Iterator[str]:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, restricted, for Linux."""
    spec, context = pod.spec, pod.spec.get("securityContext", {})
    yield from (f"{key} is not allowed" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
    for volume in spec.get("volumes", []):
        if not any(kind in volume for kind in VOLUMES):
            yield f"volume {volume['name']}: of a kind that is not allowed"
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        own = container.get("securityContext", {})
        name = f"container {container['name']}"
        if not own.get("runAsNonRoot", context.get("runAsNonRoot")):
            yield f"{name}: runAsNonRoot is missing"
        if own.get("runAsUser", context.get("runAsUser")) == 0:
            yield f"{name}: runs as root"
        if own.get("seccompProfile", context.get("seccompProfile", {})).get("type") not in (
            "RuntimeDefault",
            "Localhost",
        ):
            yield f"{name}: seccompProfile is missing"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{name}: allowPrivilegeEscalation has to be false"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or set(own["capabilities"].get("add", [])) - {
            "NET_BIND_SERVICE"
        }:
            yield f"{name}: capabilities have to be dropped"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{name}: hostPort is not allowed"
        if not own.get("readOnlyRootFilesystem"):
            yield f"{name}: the root file system can be written"


def _resources(pod: Pod) -> Iterator[str]:
    for container in pod.spec["containers"]:
        requests, limits = (container.get("resources", {}).get(key, {}) for key in ("requests", "limits"))
        if not {"cpu", "memory"} <= requests.keys() or "memory" not in limits:
            yield f"container {container['name']}: requests of cpu and memory and a limit of memory are missing"
        if requests.get("memory") != limits.get("memory"):
            yield f"container {container['name']}: memory requested and allowed differ; a full node would end it"
        if ":" not in container["image"] or container["image"].endswith(":latest"):
            yield f"container {container['name']}: the image has no tag that says what it is"
        if pod.part == "other" and not {"livenessProbe", "readinessProbe"} <= container.keys():
            yield f"container {container['name']}: probes are missing"


def _secrets(pod: Pod) -> Iterator[str]:
    for container in pod.spec["containers"]:
        for entry in container.get("env", []):
            if SECRET_NAME.search(entry["name"]) and "valueFrom" not in entry:
                yield f"{entry['name']} is written out; take it from a Secret"
    needs_token = any(container["name"] == "autoscaler" for container in pod.spec["containers"])
    if pod.spec.get("automountServiceAccountToken", True) != needs_token:
        yield "a token of the Kubernetes API is for the autoscaler's head, and for nobody else"


def _lasting(pod: Pod) -> Iterator[str]:
    if "priorityClassName" not in pod.spec:
        yield "priorityClassName is missing"
    mounts = {
        mount["mountPath"]: mount["name"] for mount in pod.spec["containers"][0].get("volumeMounts", [])
    }
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
    if pod.part in ("head", "worker"):
        shared = volumes.get(mounts.get("/dev/shm", ""), {}).get("emptyDir", {})
        if shared.get("medium") != "Memory" or "sizeLimit" not in shared:
            yield "/dev/shm is not memory of a stated size"
    if pod.part == "worker":
        environment = {
            entry["name"]: entry.get("value") for entry in pod.spec["containers"][0].get("env", [])
        }
        drain_s = float(environment.get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S") or 30)
        if not drain_s + 10 <= pod.spec.get("terminationGracePeriodSeconds", 30):
            yield f"terminationGracePeriodSeconds leaves no time for a drain of {drain_s:.0f} s"


def _ray(object_: Object) -> Iterator[str]:
    cluster, job = cluster_spec_of(object_), job_spec_of(object_)
    if cluster is not None:
        if cluster["headGroupSpec"].get("rayStartParams", {}).get("num-cpus") != "0":
            yield 'the head takes work: rayStartParams.num-cpus should be "0"'
        if cluster.get("authOptions", {}).get("mode") != "token":
            yield "authOptions: anyone who reaches the head can run commands"
    if job is not None:
        if job.get("submitterConfig", {}).get("backoffLimit") != 0:
            yield "submitterConfig.backoffLimit should be 0: the job's own backoffLimit tries again"
        if "preRunningDeadlineSeconds" not in job:
            yield "preRunningDeadlineSeconds is missing: pods that cannot start would wait for ever"
