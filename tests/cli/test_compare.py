"""`python -m fourds_dist.compare`: from shards to table, again without work, and past what fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from fourds_dist.cli.compare import main
from fourds_dist.cli.pack import main as pack
from fourds_dist.config.loading import to_yaml
from fourds_dist.data.datasets.layouts import LAYOUTS
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.stages.settings import Settings
from fourds_dist.training.stop_signals import Stopped
from tests.experiments.compare.small import CHANGES, METHODS, NETWORK, write_domains


def write(folder: Path, domains: dict[str, str], **keys: Any) -> list[str]:
    given = {"name": "small", "through": "here", "domains": domains, "methods": METHODS, "changes": CHANGES}
    (folder / "comparison.yaml").write_text(to_yaml(given | keys))
    return [str(folder / "comparison.yaml"), f"run.dir={folder}/runs"]


def starts(folder: Path) -> dict[str, int]:
    """How often each run's stages began."""
    return {
        file.parent.name: file.read_text().count('"event": "start"')
        for file in folder.glob("runs/small/*/*/metrics.jsonl")
    }


def test_from_shards_to_a_table_and_past_what_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = write_domains(tmp_path, "a", "b")
    broken = {**METHODS, "broken": {"method.preset": "4ds", "distill_stage.optim.lr": 1e30}}
    given = write(tmp_path, domains, pairs=[["a", "b"]], seeds=[0, 1], methods=broken)
    assert main(given) == 1
    out = capsys.readouterr().out
    assert "[1/10] teacher for a, seed 0: done" in out
    assert "[10/10] a -> b, all, seed 1, broken: failed:" in out
    assert "left out: a -> b, all, seed 0, broken:" in out
    assert "6 of 8 cells done" in out
    folder = tmp_path / "runs" / "small"
    table = (folder / "table.md").read_text()
    assert "| 4ds - cross entropy |" in table
    assert "broken |" not in table
    assert "left out: a -> b, all, seed 0, broken" in table
    assert (folder / "differences.png").stat().st_size > 5000
    tree = json.loads((folder / "results.json").read_text())
    assert len(tree["cells"]) == 6
    assert len(tree["failures"]) == 2
    assert all(cell["train_s"] > 0 and cell["source_s"] > 0 for cell in tree["cells"])
    kept = {
        stage.parent.name for name in ("source", "adapt", "distill") for stage in folder.glob(f"*/*/{name}")
    }
    assert not kept, "checkpoints of what is done, and of cells that failed before their first"
    (folder / "cells" / "a-to-b.all.4ds.0" / "distill" / "checkpoint-00000002").mkdir(parents=True)
    began = starts(tmp_path)
    assert began["a-to-b.all.two_stage.0"] == 2  # adapted, then distilled; the source stage is another run's
    assert began["a-to-b.all.4ds.0"] == 1

    # Again: what is done is read, what failed is tried again.
    assert main(given) == 1
    assert "[1/2] a -> b, all, seed 0, broken: failed" in capsys.readouterr().out
    # Left by a kill, or an older version:
    assert not (folder / "cells" / "a-to-b.all.4ds.0" / "distill").exists()
    assert main([*given, "--table"]) == 0
    assert "left out: a -> b, all, seed 0, broken: " in capsys.readouterr().out
    assert len(json.loads((folder / "results.json").read_text())["failures"]) == 2
    assert {k: v for k, v in starts(tmp_path).items() if "broken" not in k} == {
        k: v for k, v in began.items() if "broken" not in k
    }
    whole = write(tmp_path, domains, pairs=[["a", "b"]], seeds=[0, 1])
    assert main(whole) == 0
    assert "6 of 6 cells done" in capsys.readouterr().out


def test_no_run_starts_after_a_stop_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []

    def told(settings: Settings, **given: Any) -> None:
        began.append(settings.run.name)
        raise Stopped(StopReason(StopKind.SIGTERM), 7)

    monkeypatch.setattr("fourds_dist.experiments.executor.base.run", told)
    domains = write_domains(tmp_path, "a", "b")
    assert main(write(tmp_path, domains, pairs=[["a", "b"]])) == 130
    assert len(began) == 1
    assert "failed" not in capsys.readouterr().out


def test_all_pairs_of_a_data_set_of_the_paper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small tree of Office-31's layout, packed and compared by the shipped file."""
    monkeypatch.chdir(tmp_path)
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    for domain in LAYOUTS["office-31"].domains.values():
        for number in range(5):
            executor = tmp_path / "downloaded" / domain / "images" / f"class {number}"
            executor.mkdir(parents=True)
            for index in range(12):
                left, top = 40 * index, 60 * number
                photograph.crop((left, top, left + 40, top + 40)).save(executor / f"frame {index}.jpg")
    assert pack(["office-31", "downloaded", "shards", "--partial"]) == 0
    methods = {name: METHODS[name] for name in ("4ds", "cross_entropy")}
    changes = {f"{section}.{key}": value for section, keys in CHANGES.items() for key, value in keys.items()}
    words = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    words += ["teacher.start=random", "through=here", f"methods={json.dumps(methods)}"]
    config = Path(__file__).parents[2] / "configs" / "compare" / "office-31.yaml"
    assert main([str(config), *words]) == 0
    assert "12 of 12 cells done: 2 methods, 6 pairs of domains, 1 seed" in capsys.readouterr().out
    table = (tmp_path / "runs" / "office-31" / "table.md").read_text()
    assert "the best baseline, cross entropy" in table.splitlines()[2]
    columns = next(line for line in table.splitlines() if line.startswith("| method"))
    assert all(f"{a} -> {b}" in columns for a, b in (("amazon", "dslr"), ("webcam", "amazon")))


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_cells_are_tasks_of_a_cluster_and_one_that_dies_is_left_out(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = write_domains(tmp_path, "a", "b")
    methods = {name: METHODS[name] for name in ("4ds", "cross_entropy")}
    methods["deadly"] = {
        "student": {**NETWORK, "arch": "tests.experiments.compare.small:deadly", "start": "random"}
    }
    given = write(tmp_path, domains, pairs=[["a", "b"]], methods=methods, through="ray", parallel=2)
    assert main(given) == 1
    out = capsys.readouterr().out
    assert "2 of 3 cells done" in out
    (line,) = [line for line in out.splitlines() if line.startswith("left out:")]
    assert "deadly: WorkerCrashedError" in line
