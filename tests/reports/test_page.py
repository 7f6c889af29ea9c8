"""A page of a report: its HTML and its PNG files."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from fourds_dist.reports import charts
from fourds_dist.reports.charts import Chart
from fourds_dist.reports.page import ReportPage, ReportSection, ReportTable


def test_names_with_html_characters_are_escaped() -> None:
    name = "<script>&\"'"
    chart = charts.lines(name, name, {name: ([1.0], [1.0])})
    table = ReportTable((name,), [(name,)])
    section = ReportSection("s", name, [name], [table], [chart], [(name, name)])
    html = ReportPage(name, name, [(name, name)], [section]).html()
    assert "<script" not in html
    assert html.count("&lt;script&gt;&amp;&#34;&#39;") >= 12


def chart(name: str, width_in: float = 4.0) -> Chart:
    return Chart(name, f"title of {name}", f"words of {name}", width_in, b"<svg/>", name.encode())


def test_every_chart_is_a_file_and_an_image_in_the_page() -> None:
    sections = [
        ReportSection("a", "A", charts=[chart("x"), chart("y", 6.0)]),
        ReportSection("b", "B", charts=[chart("z")]),
    ]
    page = ReportPage("title", "verdict", [], sections)
    assert page.pngs() == {"x.png": b"x", "y.png": b"y", "z.png": b"z"}
    html = page.html()
    assert html.count('src="data:image/svg+xml;base64,PHN2Zy8+"') == 3
    assert html.count('<figure class="broad">') == 1
    assert 'alt="words of y" style="max-width: 648px; min-width: 528px"' in html
    assert '<li><a href="#b">B</a></li>' in html


def test_tables_align_numbers_and_mark_a_row() -> None:
    table = ReportTable(("name", "points"), [("a", "1"), ("b", "2")], numeric={1}, strong=1)
    html = ReportPage("t", "v", [("method", "4ds")], [ReportSection("s", "S", tables=[table])]).html()
    assert '<th scope="col">name</th><th scope="col" class="n">points</th>' in html
    assert '<tr><td>a</td><td class="n">1</td></tr>' in html
    assert '<tr class="strong"><td>b</td><td class="n">2</td></tr>' in html
    assert "<dt>method</dt><dd>4ds</dd>" in html


@pytest.mark.parametrize(("num_lines", "is_folded"), [(13, False), (14, True)])
def test_long_code_is_folded(num_lines: int, is_folded: bool) -> None:
    text = "\n".join("x" * num_lines)
    html = ReportPage("t", "v", [], [ReportSection("s", "S", code=[("config", text)])]).html()
    assert ("<details><summary>config</summary>" in html) == is_folded
    assert f"<pre>{text}</pre>" in html


def test_a_page_is_rendered_whole_or_not_at_all() -> None:
    with pytest.raises(UndefinedError):
        ReportPage("t", "v", [], [object()]).html()  # pyright: ignore[reportArgumentType]
