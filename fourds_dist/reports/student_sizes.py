"""The section of a report about several students of one run: accuracy over latency, and a table."""

from __future__ import annotations

from fourds_dist.inference.metrics import wilson
from fourds_dist.reports import charts
from fourds_dist.reports.charts import Chart, Point
from fourds_dist.reports.page import ReportSection, ReportTable
from fourds_dist.reports.sections import interval
from fourds_dist.runs.accuracy import MEASURE_NAMES, measure_text, percent
from fourds_dist.runs.layout import Network
from fourds_dist.runs.summary import NetworkResult, RunSummary
from fourds_dist.stages.finished_run import Run


def students(run: Run) -> ReportSection | None:
    """Return size, latency and accuracy of several students as chart and table; None for one student."""
    summary = run.summary
    if summary is None or not summary.students:
        return None
    by_latency = dict(sorted(summary.students.items(), key=lambda of: of[1].latency_ms or 0.0))
    measure = MEASURE_NAMES[summary.selected_by]
    rows = [
        (
            name,
            f"{line.num_parameters / 1e6:.2f} M",
            "-" if line.latency_ms is None else f"{line.latency_ms:.2f} ms",
            f"{line.target.images_per_s:.0f}",
            str(line.selected_epoch),
            measure_text(summary.selected_by, line.validation),
            percent(line.target.value),
            interval(line.target),
            *([str(line.estimate or "-")] if summary.estimate else []),
        )
        for name, line in by_latency.items()
    ]
    estimated = ("estimated target accuracy",) if summary.estimate else ()
    tested = (f"validation {measure}", "target accuracy", "95 % interval", *estimated)
    columns = ("student", "parameters", "latency", "images/s", "epoch", *tested)
    strong = list(by_latency).index(summary.best_student) if summary.best_student in by_latency else None
    table = ReportTable(columns, rows, range(1, len(columns)), strong)
    words = [
        f"{len(rows)} students learnt in one run from one teacher, each selected at its own epoch. The latency is the "
        "median time of a prediction of one image on one worker, images/s that of batches. The highlighted student is "
        f"the best one by validation {measure}; `student.safetensors` has its weights."
    ]
    drawn = _over_latency(summary)
    return ReportSection("students", "Students", words, [table], [drawn] if drawn else [])


def _over_latency(summary: RunSummary) -> Chart | None:
    """Return the accuracies on the target over the latencies, with the teacher for comparison; None without values."""
    adapted = Network.TEACHER_ADAPTED.display_name
    others = {line.network: line for line in summary.lines if line.network == adapted}
    points = {name: _point(line) for name, line in {**summary.students, **others}.items()}
    found = {name: point for name, point in points.items() if point is not None}
    if len(found) < 2:
        return None
    is_estimate = all(line.target.value is None for line in summary.students.values())
    y = "estimated accuracy on the target" if is_estimate else "accuracy on the target"
    title, x = "Accuracy over latency", "latency of one image (ms)"
    return charts.scatter("accuracy-over-latency", title, found, x=x, y=y, percent=True, plain=tuple(others))


def _point(line: NetworkResult) -> Point | None:
    """Return latency, accuracy (or its estimate) and 95 % interval of a network."""
    if line.latency_ms is None:
        return None
    if line.target.value is not None:
        low, high = wilson(line.target.num_correct, line.target.num_samples)
        return Point(line.latency_ms, line.target.value, low, high)
    if line.estimate is None:
        return None
    return Point(line.latency_ms, line.estimate.value, line.estimate.low, line.estimate.high)
