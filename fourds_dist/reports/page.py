"""Content and rendering of a report page: one HTML file without external resources."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from fourds_dist.reports import charts
from fourds_dist.reports.charts import Chart


@dataclass(frozen=True)
class ReportTable:
    """A table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Collection[int] = ()
    """Indices of the columns that are aligned to the right."""
    strong: int | None = None
    """Index of the highlighted row."""


@dataclass(frozen=True)
class ReportSection:
    """A section of a page."""

    name: str
    """The section's id, unique in the page."""
    title: str
    words: Sequence[str] = ()
    tables: Sequence[ReportTable] = ()
    charts: Sequence[Chart] = ()
    code: Sequence[tuple[str, str]] = ()
    """(title, text to copy); long texts are folded."""


@dataclass(frozen=True)
class ReportPage:
    """A report page."""

    title: str
    verdict: str
    """Summary in one or two sentences."""
    facts: Sequence[tuple[str, str]]
    """(name, value) under the title."""
    sections: Sequence[ReportSection]
    command: str = "python -m fourds_dist.report"
    """Writes the page again."""

    def html(self) -> str:
        """Render the HTML file."""
        return _template().render(page=self, colours=charts)

    def pngs(self) -> dict[str, bytes]:
        """Return the PNG files of all charts: file name -> content."""
        return {f"{chart.name}.png": chart.png for section in self.sections for chart in section.charts}


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.get_template("page.html.j2")
