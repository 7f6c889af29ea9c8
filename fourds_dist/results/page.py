"""The page that a report is: sections of words, tables, charts and pictures, in one file without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from fourds_dist.results.charts import PALETTE, Chart


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    """Columns aligned to the right."""
    strong: int | None = None
    """The row to look at."""


@dataclass(frozen=True)
class Picture:
    """An image with a caption of one or two lines."""

    png: bytes
    caption: str
    words: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    name: str
    """Of its place in the page; unique."""
    title: str
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    strips: Sequence[tuple[str, Sequence[Picture]]] = ()
    """Rows of pictures, with their names."""
    code: Sequence[tuple[str, str]] = ()
    """(what it is, text to copy); longer ones are folded."""
    sheets: dict[str, bytes] = field(default_factory=dict)
    """Further PNGs that lie beside the page, by name without extension."""
    parts: Sequence[Section] = ()
    """Folded sections within."""

    def pngs(self) -> dict[str, bytes]:
        """File name -> content of all that lies beside the page."""
        own = {chart.name: chart.png for chart in self.charts} | self.sheets
        named = {f"{name}.png": data for name, data in own.items()}
        for part in self.parts:
            named |= part.pngs()
        return named


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    verdict: str
    """What a hurried reader takes away."""
    facts: Sequence[tuple[str, str]]
    """(name, value) under the title."""
    sections: Sequence[Section]

    def html(self) -> str:
        """The file."""
        return _template().render(page=self, palette=PALETTE)

    def pngs(self) -> dict[str, bytes]:
        """File name -> content of all pictures beside it."""
        return {name: data for section in self.sections for name, data in section.pngs().items()}


@cache
def _template() -> Template:
    from fourds_dist.results.pictures import uri

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
