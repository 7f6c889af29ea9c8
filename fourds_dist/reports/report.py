"""Write the report of a run, or of several runs side by side: report.html and a folder of PNG files."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fourds_dist.io.error_text import error_line
from fourds_dist.io.storage import check_writable, plain, write_bytes
from fourds_dist.reports import analysis_sections, sections, student_sizes
from fourds_dist.reports.analysis import TEACHER, PredictionAnalysis, load_or_analyse
from fourds_dist.reports.page import ReportPage, ReportSection
from fourds_dist.reports.side_by_side import comparison
from fourds_dist.runs.layout import REPORT_FOLDER, RunFile
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.settings import Settings

_log = logging.getLogger(__name__)


def write_report(run_url: str) -> str | None:
    """Write the report of one run into its folder and return the path of the page.

    Every exception is logged, and None returned: a run ends with its report and must not fail because of the report.
    """
    try:
        return report([Run(run_url)])
    except Exception as error:
        _log.warning(
            "no report of %s: %s; try again with `python -m fourds_dist.report %s`",
            *(run_url, error_line(error, 300), run_url),
        )
        _log.debug("", exc_info=True)
        return None


def report(runs: Sequence[Run], dest: str | None = None, *, num_images: int | None = None) -> str:
    """Write the report of one run, or of several runs side by side, and return the path of the page.

    Args:
        dest: folder, as path or URL; None: the folder of the run. Required for several runs.
        num_images: test images to analyse, see `load_or_analyse`; only for one run.

    Raises:
        ValueError: several runs and no `dest`, several runs and `num_images`, or a folder that cannot be written to.
    """
    if len(runs) > 1 and dest is None:
        raise ValueError(f"a report of {len(runs)} runs needs a separate folder; give --out FOLDER")
    if len(runs) > 1 and num_images is not None:
        raise ValueError(
            f"--images {num_images}: a report of {len(runs)} runs compares their results and analyses no images; "
            "leave out --images, or give one run"
        )
    folder = plain(dest or runs[0].url)
    check_writable(folder)
    page = comparison(runs) if len(runs) > 1 else _page(runs[0], *_analysis(runs[0], num_images))
    for name, png in page.pngs().items():
        write_bytes(f"{folder}/{REPORT_FOLDER}/{name}", png)
    write_bytes(f"{folder}/{RunFile.REPORT}", page.html().encode())
    return f"{folder}/{RunFile.REPORT}"


def _analysis(run: Run, num_images: int | None) -> tuple[PredictionAnalysis | None, str]:
    """Return the run's analysis, or None and the reason."""
    if run.summary is None:
        return None, "the run is not done"
    if not run.summary.lines[0].target.num_samples:
        return None, "the test split has no labels"
    try:
        return load_or_analyse(run, num_images=num_images), ""
    except (ValueError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        _log.warning("%s: the report lacks the analysis of the test images: %s", run.url, reason)
        return None, reason


def _page(run: Run, analysis: PredictionAnalysis | None, missing: str) -> ReportPage:
    settings = run.settings
    facts = [
        ("teacher", settings.teacher.arch),
        ("students" if settings.students else "student", ", ".join(_archs(settings))),
        ("method", settings.method.preset),
        ("target", str(settings.target.url)),
        ("workers", str(run.summary.num_workers if run.summary else settings.launch.workers)),
    ]
    if analysis:
        analysed = [analysis_sections.classes(analysis), analysis_sections.mistakes(analysis)]
    else:
        analysed = [ReportSection("classes", "Classes", [f"The test images were not analysed: {missing}."])]
    in_order = (
        sections.results(run),
        student_sizes.students(run),
        *analysed,
        sections.learning(run),
        analysis_sections.adapters(run, analysis),
        sections.speed(run),
        sections.events(run),
        sections.repeating(run),
    )
    return ReportPage(run.name, verdict(run), facts, [section for section in in_order if section])


def _archs(settings: Settings) -> list[str]:
    """Return the names of several students, or the arch of one."""
    return list(settings.named_students) if settings.students else [settings.student.arch]


def verdict(run: Run) -> str:
    """Return the summary of a run in one or two sentences."""
    summary = run.summary
    if summary is None:
        last = run.events[-1] if run.events else None
        reached = f"; its last event is of step {last.step} of the {last.stage} stage" if last else ""
        return f"This run is not done{reached}. Repeat its command to resume the run."
    lines = {line.network: line for line in summary.lines}
    student, teacher = summary.student, lines.get(TEACHER)
    if student is None:
        return "The run's table has no student."
    whose = f"best student's ({summary.best_student})" if summary.best_student else "student's"
    if student.target.value is None:
        if student.estimate is None:
            return "The target's test split has no labels, and without a source there is no estimate of the accuracy."
        return (
            f"The {whose} accuracy on the target is estimated at {student.estimate} without labels, "
            f"{student.estimate.basis}."
        )
    accuracy = (
        f"The {whose} accuracy on the target's test split is {student.target.value:.1%} (95 % interval "
        f"{sections.interval(student.target)})"
    )
    if student.estimate is not None:
        accuracy += f"; the estimate without labels is {student.estimate}"
    if teacher is None or teacher.target.value is None:
        return accuracy + "."
    gain = 100 * (student.target.value - teacher.target.value)
    difference = f"{abs(gain):.1f} points {'above' if gain >= 0 else 'below'} the teacher without adapters"
    size = f"with {student.num_parameters / teacher.num_parameters:.0%} of the teacher's parameters"
    return f"{accuracy}, {difference}, {size}."
