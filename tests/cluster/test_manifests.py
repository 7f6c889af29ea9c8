"""Everything in cluster/kubernetes, as it would be applied."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.validate import schemas
from cluster.validate.__main__ import main, problems
from cluster.validate.pods import cluster_spec_of, pods_of
from cluster.validate.render import KUBERNETES, Object, RenderError, folders, render
from tests.cluster.conftest import COMPONENTS, OVERLAYS


def named(folder: Path) -> str:
    """A test's name of a folder; `gpu` alone would be taken for the mark."""
    return f"{folder.parent.name}/{folder.name}"


@pytest.mark.parametrize("folder", folders(), ids=named)
def test_no_rule_is_broken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "kubernetes_known", lambda: False)  # the next test's
    assert list(problems(folder)) == []


@pytest.mark.parametrize("folder", folders(), ids=named)
def test_kubernetes_takes_it(folder: Path) -> None:
    assert [text for object_ in render(folder) for text in schemas.kubernetes_problems(object_)] == []


@pytest.mark.parametrize("overlay", OVERLAYS, ids="overlays/{}".format)
def test_kuberay_takes_it(overlay: str, rendered: dict[str, list[Object]], kuberay_schemas: Path) -> None:
    found = [text for o in rendered[overlay] for text in schemas.kuberay_problems(o, kuberay_schemas)]
    assert found == []


def test_checkov_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkov = shutil.which("checkov")
    if checkov is None:
        pytest.skip("no checkov")
    assert main(["--pods", str(KUBERNETES / "setup"), *OVERLAYS]) == 0
    (tmp_path / "pods.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    cluster = KUBERNETES.parent
    files = [str(tmp_path / "pods.yaml"), str(cluster / "Dockerfile")]
    done = subprocess.run(
        [checkov, "--config-file", str(cluster / "checkov.yaml"), "--file", *files, "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    reports = {report["check_type"]: report for report in json.loads(done.stdout)}
    assert {kind: report["results"]["failed_checks"] for kind, report in reports.items()} == {
        "dockerfile": [],
        "kubernetes": [],
    }
    assert reports["kubernetes"]["summary"]["resource_count"] >= 3 * len(OVERLAYS)


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_fits_a_copied_overlay(component: str, tmp_path: Path) -> None:
    copied = copy_of_gpu(
        tmp_path, lambda content: content["components"].append(f"../../components/{component}")
    )
    assert list(problems(copied)) == []


def copy_of_gpu(folder: Path, change: Callable[[Any], None] = lambda _: None, run: str | None = None) -> Path:
    """The overlay `gpu`, copied elsewhere, as a user would."""
    gpu = KUBERNETES / "overlays" / "gpu"
    content = yaml.safe_load((gpu / "kustomization.yaml").read_text(encoding="utf-8"))
    change(content)
    content["components"] = list(dict.fromkeys(content["components"]))
    text = yaml.safe_dump(content).replace("../../", os.path.relpath(KUBERNETES, folder.resolve()) + "/")
    (folder / "kustomization.yaml").write_text(text, encoding="utf-8")
    (folder / "job.yaml").write_bytes((gpu / "job.yaml").read_bytes())
    (folder / "run.yaml").write_text(run or (gpu / "run.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def test_names_are_final_everywhere(rendered: dict[str, list[Object]]) -> None:
    for name, objects in rendered.items():
        made = {(o["kind"], o["metadata"]["name"]) for o in objects}
        for object_ in objects:
            for pod in pods_of(object_):
                for volume in pod.spec.get("volumes", []):
                    if "configMap" in volume:
                        assert ("ConfigMap", volume["configMap"]["name"]) in made, name
                    if "persistentVolumeClaim" in volume:
                        claim = ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
                        assert claim in made, name
                for container in pod.spec["containers"]:
                    assert container["image"].startswith(("REGISTRY/fourds-dist:", "redis:")), name


def test_the_accounts_and_priorities_exist(rendered: dict[str, list[Object]]) -> None:
    made = {(o["kind"], o["metadata"]["name"]) for o in render(KUBERNETES / "setup")}
    for objects in rendered.values():
        for pod in (pod for o in objects for pod in pods_of(o)):
            assert ("ServiceAccount", pod.spec["serviceAccountName"]) in made
            assert ("PriorityClass", pod.spec["priorityClassName"]) in made


def test_a_changed_configuration_is_another_config_map(tmp_path: Path) -> None:
    names = set()
    for seed in (0, 1):
        objects = render(copy_of_gpu(tmp_path, run=f"run: {{ seed: {seed} }}\n"))
        names |= {o["metadata"]["name"] for o in objects if o["kind"] == "ConfigMap"}
    assert len(names) == 2


def test_what_is_interactive_runs_in_the_job_s_pods(rendered: dict[str, list[Object]]) -> None:
    interactive = next(o for o in rendered["interactive"] if o["kind"] == "RayCluster")
    job = next(o for o in rendered["gpu-spot"] if o["kind"] == "RayJob")
    worker = cluster_spec_of(job)["workerGroupSpecs"][0]["template"]["spec"]  # pyright: ignore
    groups = cluster_spec_of(interactive)["workerGroupSpecs"]  # pyright: ignore
    assert [group["groupName"] for group in groups] == ["l4", "a100", "h100"]
    assert [group["labels"]["ray.io/accelerator-type"] for group in groups] == ["L4", "A100", "H100"]
    for group in groups:
        spec = group["template"]["spec"]
        assert spec["containers"] == worker["containers"]
        assert {**spec, "affinity": 0} == {**worker, "affinity": 0, "nodeSelector": spec["nodeSelector"]} | {
            "tolerations": spec["tolerations"]
        }
    assert not any(o["kind"] == "RayJob" for o in rendered["interactive"])


def test_a_night_s_tries_share_one_run_name(rendered: dict[str, list[Object]]) -> None:
    cron = next(o for o in rendered["nightly"] if o["kind"] == "RayCronJob")
    entrypoint = cron["spec"]["jobTemplate"]["entrypoint"]
    names = set()
    for end in ("k2x9q", "7dwzp"):  # KubeRay: the job's name, a hyphen and five characters
        done = subprocess.run(
            ["bash", "-ec", f"echo {entrypoint}"],
            env={"RAY_JOB_SUBMISSION_ID": f"fourds-nightly-29401320-{end}"},
            capture_output=True,
            text=True,
            check=True,
        )
        names.add(done.stdout.split()[-1])
    assert names == {"run.name=fourds-nightly-29401320"}
    assert not any(o["kind"] == "RayJob" for o in rendered["nightly"])


def test_the_command_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [cluster.yaml]\n", encoding="utf-8")
    (tmp_path / "cluster.yaml").write_text(
        "apiVersion: v1\nkind: Secret\nmetadata: { name: keys }\nstringData: { a: b }\n", encoding="utf-8"
    )
    assert main([str(tmp_path)]) == 1
    assert "Secret/keys: a Secret in a manifest ends up in a repository" in capsys.readouterr().out
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n", encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    assert "missing.yaml" in capsys.readouterr().err
    with pytest.raises(RenderError, match=r"missing\.yaml"):
        render(tmp_path)
