"""The report of a run, or of several side by side: report.html in one file, its pictures beside it.

`write_report` ends every run and never fails it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fourds_dist.results.comparison import comparison
from fourds_dist.results.examine import STUDENT, TEACHER, Examination, examined
from fourds_dist.results.page import Page
from fourds_dist.results.run import Run
from fourds_dist.results.scores import wilson
from fourds_dist.results.sections import RunSections
from fourds_dist.runs.layout import REPORT_FOLDER, RunFile
from fourds_dist.storage import check_writable, plain, write_bytes

_log = logging.getLogger(__name__)


def write_report(run_url: str) -> str | None:
    """The report of one run into its folder; gives its place. Whatever goes wrong is logged, and None given."""
    try:
        return report([Run(run_url)])
    except Exception as error:
        _log.warning("no report of %s: %s: %s; `python -m fourds_dist.report %s` tries again", run_url,
                     type(error).__name__, " ".join(str(error).split())[:300], run_url)  # fmt: skip
        _log.debug("", exc_info=True)
        return None


def report(runs: Sequence[Run], dest: str | None = None, *, num_images: int | None = None) -> str:
    """Write the report of one run, or of several side by side; gives the page's place.

    Args:
        dest: folder, path or URL; None: the run's own. Needed for several.
        num_images: test images that all networks look at once more, see `examined`.

    Raises:
        ValueError: several runs and no `dest`.
    """
    if len(runs) > 1 and dest is None:
        raise ValueError(f"{len(runs)} runs side by side need a place for their report; give --out FOLDER")
    place = plain(dest or runs[0].url)
    check_writable(place)
    looks = [_look(run, num_images) for run in runs]
    page = _page(runs[0], *looks[0]) if len(runs) == 1 else comparison(runs, looks)
    for name, png in page.pngs().items():
        write_bytes(f"{place}/{REPORT_FOLDER}/{name}", png)
    write_bytes(f"{place}/{RunFile.REPORT}", page.html().encode())
    return f"{place}/{RunFile.REPORT}"


def _look(run: Run, num_images: int | None) -> tuple[Examination | None, str]:
    """What its networks see, or why that cannot be told."""
    if run.outcome is None:
        return None, "the run is not done"
    try:
        return examined(run, num_images=num_images), ""
    except (ValueError, OSError, RuntimeError) as error:
        why = " ".join(str(error).split())
        _log.warning("%s: its report does without single images: %s", run.url, why)
        return None, why


def _page(run: Run, seen: Examination | None, missing: str) -> Page:
    settings = run.settings
    facts = [
        ("teacher", settings.teacher.arch),
        ("student", settings.student.arch),
        ("method", settings.method.preset),
        ("target", str(settings.target.url)),
        ("workers", str(run.outcome.num_workers if run.outcome else settings.launch.workers)),
    ]
    sections = RunSections(run, seen, missing=missing).all()
    return Page(run.name, verdict(run), facts, sections)


def verdict(run: Run) -> str:
    """A run in one or two sentences."""
    outcome = run.outcome
    if outcome is None:
        last = run.events[-1] if run.events else None
        reached = f"; it has come to step {last.step} of the {last.stage} stage" if last else ""
        return f"This run is not done{reached}. The same command goes on with it."
    lines = {line.network: line for line in outcome.lines}
    student, teacher = lines[STUDENT], lines.get(TEACHER)
    num = max(1, student.target.num_samples)
    low, high = wilson(student.target.num_correct, num)
    told = f"The student recognises {student.target.value:.1%} of the target's test images ({low:.1%} to {high:.1%})"
    if teacher is None:
        return told + "."
    gain = 100 * (student.target.value - teacher.target.value)
    than = f"{abs(gain):.1f} points {'more' if gain >= 0 else 'less'} than the teacher it was distilled from"
    size = f"with {student.num_parameters / teacher.num_parameters:.0%} of its parameters"
    return f"{told}: {than}, {size}."
