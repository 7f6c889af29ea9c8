"""The report in a real browser, desktop and phone; skipped where no Chromium is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fourds_dist.reports.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

PROBE = """<script>
addEventListener("load", () => {
  const all = [...document.querySelectorAll("main *, header *")];
  const beyond = e => e.getBoundingClientRect().right > innerWidth + 1;
  const wide = all.filter(e => beyond(e) && !e.closest(".scroll, .broad, pre, nav"));
  const measured = {
    width: innerWidth, page: document.documentElement.scrollWidth, wide: wide.map(e => e.outerHTML.slice(0, 80)),
    paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    broken: [...document.images].filter(i => { i.loading = "eager"; return i.complete && !i.naturalWidth; }).length,
    charts: document.images.length,
    text: Math.min(...[...document.images].map(i => 9 * i.getBoundingClientRect().width / i.naturalWidth)),
  };
  document.body.innerHTML = ""; document.body.dataset.measured = JSON.stringify(measured);
});
</script>"""


@pytest.fixture(scope="module")
def probed(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(workplace / "runs" / "digits", tmp_path_factory.mktemp("browser") / "digits"))
    assert write_report(str(run))
    path = run / "probed.html"
    path.write_text((run / "report.html").read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"))
    return path


@pytest.mark.parametrize("scheme", [1, 0], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 500], ids=["desktop", "phone"])
def test_it_fits_and_is_light(probed: Path, scheme: int, width: int, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom",
         f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={tmp_path}", f"file://{probed}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    match = re.search(r'data-measured="([^"]*)"', done.stdout)
    assert match is not None
    measured = json.loads(
        match[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )
    assert measured["width"] == width
    assert measured["page"] <= width
    assert measured["wide"] == []
    assert measured["paper"] == "rgb(255, 255, 255)"
    assert measured["ink"] == "rgb(28, 31, 35)"
    assert measured["broken"] == 0
    assert measured["charts"] >= 12
    assert measured["text"] >= 8
