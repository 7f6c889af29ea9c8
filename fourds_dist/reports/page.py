"""Content and rendering of a report page: one HTML file without external resources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from fourds_dist.reports.charts import PALETTE, Chart


@dataclass(frozen=True)
class ReportTable:
    """A table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    """Indices of the columns that are aligned to the right."""
    strong: int | None = None
    """Index of the highlighted row."""


@dataclass(frozen=True)
class ReportImage:
    """An image with a caption of one or two lines."""

    png: bytes
    caption: str
    words: str
    note: str = ""


@dataclass(frozen=True)
class ReportSection:
    """A section of a page."""

    name: str
    """The section's id, unique in the page."""
    title: str
    words: Sequence[str] = ()
    tables: Sequence[ReportTable] = ()
    charts: Sequence[Chart] = ()
    strips: Sequence[tuple[str, Sequence[ReportImage]]] = ()
    """(title, images) of each row of images."""
    code: Sequence[tuple[str, str]] = ()
    """(title, text to copy); long texts are folded."""
    sheets: dict[str, bytes] = field(default_factory=dict)
    """Further PNG files, by name without extension."""
    parts: Sequence[ReportSection] = ()
    """Folded subsections."""

    def pngs(self) -> dict[str, bytes]:
        """Return the PNG files of the section and its subsections: file name -> content."""
        by_name = {chart.name: chart.png for chart in self.charts} | self.sheets
        files = {f"{name}.png": data for name, data in by_name.items()}
        for part in self.parts:
            files |= part.pngs()
        return files


@dataclass(frozen=True)
class ReportPage:
    """A report page."""

    title: str
    verdict: str
    """Summary in one or two sentences."""
    facts: Sequence[tuple[str, str]]
    """(name, value) under the title."""
    sections: Sequence[ReportSection]

    def html(self) -> str:
        """Render the HTML file."""
        return _template().render(page=self, palette=PALETTE)

    def pngs(self) -> dict[str, bytes]:
        """Return the PNG files of all sections: file name -> content."""
        return {name: data for section in self.sections for name, data in section.pngs().items()}


@cache
def _template() -> Template:
    from fourds_dist.reports.images import uri

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["uri"] = uri
    environment.filters["svg"] = lambda chart: Markup(chart.svg)
    return environment.get_template("page.html.j2")
