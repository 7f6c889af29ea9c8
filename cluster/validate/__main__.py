"""Manifests, checked before a cluster sees them: kustomize, schemas, KubeRay's rules, pod security, run.yaml.

python -m cluster.validate                                         everything in cluster/kubernetes
python -m cluster.validate gpu my/folder --kuberay-schemas DIR     some, with KubeRay's schemas too
python -m cluster.validate --pods gpu > pods.yaml                  pods in place of KubeRay's kinds, for linters

Exit status 1 where something is wrong. Kubernetes' own schemas come with `pip install kubernetes-validate`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from cluster.validate import kuberay, policy, schemas
from cluster.validate.pods import for_linters
from cluster.validate.render import KUBERNETES, RenderError, folders, name_of, render


def problems(folder: Path, kuberay_schemas: Path | None = None) -> Iterator[str]:
    """All that is wrong with a folder of manifests.

    Raises:
        RenderError: kustomize refused it.
    """
    from cluster.validate import agreement  # imports PyTorch, which takes its time

    objects = render(folder)
    for object_ in objects:
        found = [*kuberay.problems(object_), *policy.problems(object_)]
        if schemas.kubernetes_known():
            found += schemas.kubernetes_problems(object_)
        if kuberay_schemas is not None:
            found += schemas.kuberay_problems(object_, kuberay_schemas)
        yield from (f"{name_of(object_)}: {text}" for text in found)
    yield from agreement.problems(objects)


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m cluster.validate`; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, help="folders, or overlays by name; left out: all here"
    )
    parser.add_argument(
        "--kuberay-schemas", type=Path, help="folder of KubeRay's schemas, KIND.v1.schema.json[.gz]"
    )
    parser.add_argument(
        "--pods", action="store_true", help="print instead of checking, pods in place of KubeRay's kinds"
    )
    options = parser.parse_args(arguments)
    chosen = [_found(folder) for folder in options.folders] or folders()
    num_bad = 0
    try:
        if options.pods:
            yaml.safe_dump_all((o for f in chosen for o in for_linters(render(f))), sys.stdout)
            return 0
        for folder in chosen:
            found = list(problems(folder, options.kuberay_schemas))
            num_bad += len(found)
            print(f"{folder.name}: {'ok' if not found else f'{len(found)} wrong'}")
            for text in found:
                print(f"  {text}")
    except RenderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for known, what in (
        (schemas.kubernetes_known(), "Kubernetes' schemas (pip install kubernetes-validate)"),
        (options.kuberay_schemas is not None, "KubeRay's schemas (--kuberay-schemas)"),
    ):
        if not known:
            print(f"left out: {what}")
    return 1 if num_bad else 0


def _found(folder: Path) -> Path:
    """A folder as given, or an overlay by its name."""
    return folder if folder.exists() else KUBERNETES / "overlays" / folder


if __name__ == "__main__":
    sys.exit(main())
