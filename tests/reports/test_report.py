"""The report: agreement with the run's files, one file without external resources, no failure of the run."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from fourds_dist.cli.report import main
from fourds_dist.inference.metrics import wilson
from fourds_dist.reports import analysis as examine
from fourds_dist.reports.analysis import STUDENT, PredictionAnalysis
from fourds_dist.reports.report import write_report
from fourds_dist.runs.layout import RunFile
from fourds_dist.stages.finished_run import Run
from tests.reports.reported import page


def test_the_page_is_complete_and_self_contained(reported: Path) -> None:
    html = page(reported)
    student = json.loads((reported / "summary.json").read_text())["lines"][-1]["target"]
    assert f"test split is {student['num_correct'] / student['num_samples']:.1%}" in html
    for section in ("result", "classes", "mistakes", "learning", "adapters", "speed", "events", "repeat"):
        assert f'<section id="{section}">' in html
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert not re.search(r"url\((?!#)|@import|<script|<link", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert all(f'id="{name}"' in html for name in re.findall(r'href="#([^"]+)"', html))
    charts = re.findall(r'<img src="data:image/svg\+xml;base64,[^"]+" alt="([^"]+)"', html)
    assert len(charts) == html.count("<img") == len(list((reported / "report").glob("*.png")))
    analysis, _ = PredictionAnalysis.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    worst = analysis.mistakes[0]
    assert f"true: {worst.truth}, predicted: {worst.predicted}, confidence: {worst.confidence:.0%}" in html
    recall = analysis.scores(STUDENT).recall[0]
    assert f'<td>{analysis.classes[0]}</td><td class="n">{recall:.1%}</td>' in html
    assert (
        f'{student["num_correct"] / student["num_samples"]:.1%}</td><td class="n">{interval_of(student)}</td>'
        in html
    )


def interval_of(target: dict[str, int]) -> str:
    low, high = wilson(target["num_correct"], target["num_samples"])
    return f"{low:.1%} to {high:.1%}"


def test_png_files_are_written(reported: Path) -> None:
    names = {path.stem for path in (reported / "report").glob("*.png")}
    expected = "confusion calibration mix amplitude mistakes feature-maps"
    more = "throughput wait distill-losses distill-accuracy distill-rates"
    assert {*expected.split(), *more.split()} <= names
    for path in (reported / "report").glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.std() > 1, path


def test_rebuilding_uses_the_stored_analysis_unless_the_result_changed(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(reported, tmp_path / "digits"))
    monkeypatch.setattr(examine, "analyse", lambda *_: pytest.fail("analysed again"))
    first = page(run).replace(str(reported), str(run))
    assert main([str(run)]) == 0
    assert page(run) == first
    (run / "summary.json").write_text((run / "summary.json").read_text().replace('"digits"', '"other"', 1))
    with pytest.raises(BaseException, match="analysed again"):
        main([str(run), "--traceback"])


def test_a_run_that_is_not_done_has_a_report(run_folder: Path) -> None:
    (run_folder / "summary.json").unlink()
    assert write_report(str(run_folder))
    html = page(run_folder)
    assert "This run is not done" in html
    assert "Distillation: training losses" in html


def test_without_its_data_the_report_names_what_is_missing(run_folder: Path, tmp_path: Path) -> None:
    config = (run_folder / "config.yaml").read_text()
    (run_folder / "config.yaml").write_text(re.sub(r"url: \S+digits-photos", f"url: {tmp_path}/gone", config))
    shutil.rmtree(run_folder / "report", ignore_errors=True)
    assert write_report(str(run_folder))
    assert "The test images were not analysed" in page(run_folder)
    assert "gone" in page(run_folder)


def test_it_never_fails_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert write_report(str(tmp_path / "none")) is None
    assert "has no run" in caplog.text


def test_runs_side_by_side(reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        shutil.copytree(reported, tmp_path / "runs" / name)
    config = tmp_path / "runs" / "b" / "config.yaml"
    config.write_text(config.read_text().replace("temperature: 4.0", "temperature: 2.0", 1))
    summary = tmp_path / "runs" / "b" / "summary.json"
    table = json.loads(summary.read_text())
    table["lines"][-1]["target"]["num_correct"] = 359
    summary.write_text(json.dumps(table))
    assert main([str(tmp_path / "runs")]) == 1
    assert "--out" in capsys.readouterr().err
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "both")]) == 0
    html = page(tmp_path / "both")
    assert "Best run: b, with a student accuracy of 100.0%" in html
    assert re.search(r"method.temperature</td><td>2.0</td><td>4.0", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert f'<td class="n">100.0%</td><td class="n">{interval_of(table["lines"][-1]["target"])}</td>' in html
    assert re.search(r'alt="Student: validation accuracy by epoch: b ends at [.\d]+, a ends at [.\d]+"', html)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "again"), "--images", "9"]) == 1
    assert "leave out --images, or give one run" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_in_object_storage(reported: Path) -> None:
    store = fsspec.filesystem("memory")
    try:
        store.put(f"{reported}/", "/bucket/runs/digits/", recursive=True)
        store.rm("/bucket/runs/digits/report.html")
        assert write_report("memory://bucket/runs/digits") == "memory://bucket/runs/digits/report.html"
        assert b"The student&#39;s accuracy" in store.cat_file("/bucket/runs/digits/report.html")
        picture = store.cat_file("/bucket/runs/digits/report/confusion.png")
        assert Image.open(io.BytesIO(picture)).format == "PNG"
        assert Run("memory://bucket/runs/digits").summary is not None
    finally:
        store.rm("/bucket", recursive=True)


def test_a_truncated_summary_is_an_error(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_folder / "summary.json"
    summary.write_text(summary.read_text()[:100])
    assert main([str(run_folder)]) == 1
    assert f"{summary} is not a results table" in capsys.readouterr().err
