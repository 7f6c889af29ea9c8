"""Names on a terminal: nothing in them is markup, an emoji or a command, wherever the package shows them."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console

import fourds_dist
from fourds_dist.data.format.manifest import Manifest, Shard
from fourds_dist.data.pack.console import show
from fourds_dist.experiments.compare.tables import ResultTable
from fourds_dist.io.terminal import harmless, in_line, say, words
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.summary import NetworkResult, RunSummary

NAMES = ("set [/b]", "linie [alt]", "[red]", "a :warning: b", "back\\[slash]", "[link=x]y")
SOURCES = sorted(Path(fourds_dist.__file__).parent.rglob("*.py"))


def shown(draw) -> str:
    out = io.StringIO()
    draw(Console(file=out, width=200, force_terminal=False))
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_titles_and_cells_are_shown_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = Accuracy(0.5, 10, 1.0)
    outcome = RunSummary(name, (NetworkResult(name, 10, None, accuracy),), 0.1, 1, 0.5, 1.0, 1)
    assert shown(outcome.show).count(name) == 2
    assert shown(ResultTable(name, ("method", name), [(name, name)]).show).count(name) == 4
    manifest = Manifest(name, (name,), {"train": (Shard("train-0.tar", 1, 1),)}, {"train": (0,)})
    show(f"out/{name}", manifest)
    assert capsys.readouterr().out.count(name) == 2


def test_control_characters_are_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert harmless("Köter 猫, a\tb\nc") == "Köter 猫, a\tb\nc"
    assert harmless("\x1b[2J\r\b\x9b1m\x7f") == r"\x1b[2J\x0d\x08\x9b1m\x7f"
    assert harmless("x\u202egpj.exe\udcf6") == r"x\u202egpj.exe\udcf6"
    assert words("\x1b]0;owned\x07").plain == r"\x1b]0;owned\x07"
    say("K\udcf6ter \x1b[31m")
    assert capsys.readouterr().out == "K\\udcf6ter \\x1b[31m\n"


def test_what_an_encoding_lacks_is_spelled_out() -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict")
    say("Köter", file=out)
    assert out.buffer.getvalue() == b"K\\xf6ter\n"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_titles_and_lines_go_through_words(path: Path) -> None:
    """A title that is no literal, and a formatted line on a console."""
    bare = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        titled = any(k.arg == "title_justify" for k in node.keywords)
        taken = [k.value for k in node.keywords if titled and k.arg == "title"]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "print":
            taken += node.args
        bare += [f"{path.name}:{node.lineno}" for value in taken if _is_bare(value)]
    assert not bare


def _is_bare(value: ast.expr) -> bool:
    return isinstance(value, ast.JoinedStr | ast.BinOp) and any(
        isinstance(node, ast.FormattedValue) for node in ast.walk(value)
    )


def test_a_name_in_a_listing_takes_one_line() -> None:
    assert in_line("a\nb\tc\x1b[2J ü") == "a\\nb\\tc\\x1b[2J ü"
