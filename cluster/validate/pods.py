"""The pods that manifests lead to, KubeRay's own additions included, so that rules and linters for pods see them.

What KubeRay 1.7 adds (ray-operator/controllers/ray/common/pod.go) and a policy could object to: the autoscaler's
container in the head, and an init container in workers that takes their security context.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

from cluster.validate.render import Object


class Pod(NamedTuple):
    """A pod's template with its part in the whole: head, worker, submitter or other."""

    part: str
    name: str
    namespace: str
    template: Object

    @property
    def spec(self) -> Object:
        """The pod's spec."""
        return self.template["spec"]

    def manifest(self) -> Object:
        """As a Pod of its own."""
        metadata = copy.deepcopy(self.template.get("metadata", {})) | {
            "name": self.name,
            "namespace": self.namespace,
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(self.spec)}


def job_spec_of(object_: Object) -> Object | None:
    """The RayJob spec of a RayJob or RayCronJob."""
    return {"RayJob": lambda: object_["spec"], "RayCronJob": lambda: object_["spec"]["jobTemplate"]}.get(
        object_["kind"], lambda: None
    )()


def cluster_spec_of(object_: Object) -> Object | None:
    """The RayCluster spec of any of KubeRay's kinds."""
    if object_["kind"] == "RayCluster":
        return object_["spec"]
    job = job_spec_of(object_)
    return job.get("rayClusterSpec") if job is not None else None


def pods_of(object_: Object) -> Iterator[Pod]:
    """All kinds of pods that come of an object."""
    name = object_["metadata"]["name"]
    namespace = object_["metadata"].get("namespace", "default")
    cluster, job = cluster_spec_of(object_), job_spec_of(object_)
    if cluster is not None:
        yield Pod("head", f"{name}-head", namespace, _with_autoscaler(cluster))
        for group in cluster.get("workerGroupSpecs", []):
            yield Pod("worker", f"{name}-{group['groupName']}", namespace, _with_wait(group["template"]))
    if job is not None and "submitterPodTemplate" in job:
        yield Pod("submitter", f"{name}-submitter", namespace, job["submitterPodTemplate"])
    if object_["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        yield Pod("other", name, namespace, object_["spec"]["template"])


def for_linters(objects: list[Object]) -> Iterator[Object]:
    """Objects of Kubernetes' own kinds as they are, and pods in place of KubeRay's."""
    for object_ in objects:
        if object_["apiVersion"].startswith("ray.io/"):
            yield from (pod.manifest() for pod in pods_of(object_))
        else:
            yield object_


def _with_autoscaler(cluster: Object) -> Object:
    template = copy.deepcopy(cluster["headGroupSpec"]["template"])
    if cluster.get("enableInTreeAutoscaling"):
        options = cluster.get("autoscalerOptions", {})
        spec = template["spec"]
        default = {"cpu": "500m", "memory": "512Mi"}
        container: Object = {
            "name": "autoscaler",
            "image": options.get("image", spec["containers"][0]["image"]),
            "imagePullPolicy": options.get("imagePullPolicy", "IfNotPresent"),
            "resources": options.get("resources", {"requests": default, "limits": default}),
            "env": options.get("env", []),
            "volumeMounts": options.get("volumeMounts", []),
        }
        if "securityContext" in options:
            container["securityContext"] = options["securityContext"]
        spec["containers"].append(container)
    return template


def _with_wait(template: Object) -> Object:
    template = copy.deepcopy(template)
    ray = template["spec"]["containers"][0]
    size = {"cpu": "200m", "memory": "256Mi"}
    wait = {
        key: ray[key]
        for key in ("image", "imagePullPolicy", "securityContext", "env", "volumeMounts")
        if key in ray
    }
    template["spec"].setdefault("initContainers", []).append(
        {"name": "wait-gcs-ready", **wait, "resources": {"requests": size, "limits": size}}
    )
    return template
