"""Objects against the schemas of Kubernetes and of KubeRay's kinds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema

from cluster.validate.pods import pods_of
from cluster.validate.render import Object

KUBERNETES_VERSION = "1.34"
KUBERAY_KINDS = ("RayCluster", "RayCronJob", "RayJob")


def kubernetes_known() -> bool:
    """Whether Kubernetes' schemas are installed (`pip install kubernetes-validate`)."""
    return find_spec("kubernetes_validate") is not None


def kubernetes_problems(object_: Object, version: str = KUBERNETES_VERSION) -> Iterator[str]:
    """What Kubernetes' schemas say to an object of its own kinds, and to the pods inside KubeRay's."""
    kubernetes: Any = import_module("kubernetes_validate")
    group = object_["apiVersion"].rpartition("/")[0]
    own = "." not in group or (group.endswith(".k8s.io") and not group.startswith("kueue."))
    for candidate in ([object_] if own else []) + [pod.manifest() for pod in pods_of(object_)]:
        try:
            kubernetes.validate(candidate, version, strict=True)
        except kubernetes.ValidationError as error:
            place = ".".join(str(step) for step in error.path)
            yield f"{candidate['kind']} {candidate['metadata']['name']}: {place}: {error.message}"


def kuberay_problems(object_: Object, folder: Path) -> Iterator[str]:
    """What KubeRay's schemas say; `folder` holds KIND.v1.schema.json, plain or .gz."""
    if object_["kind"] not in KUBERAY_KINDS:
        return
    validator = jsonschema.Draft202012Validator(_schema(folder, object_["kind"]))
    for error in validator.iter_errors(object_):
        yield f"{error.json_path}: {error.message[:300]}"


@lru_cache
def _schema(folder: Path, kind: str) -> dict[str, Any]:
    plain = folder / f"{kind}.v1.schema.json"
    packed = plain.with_name(plain.name + ".gz")
    if plain.exists():
        return json.loads(plain.read_text(encoding="utf-8"))
    if packed.exists():
        return json.loads(gzip.decompress(packed.read_bytes()))
    raise ValueError(f"{folder} holds no {plain.name} and no {packed.name}")
