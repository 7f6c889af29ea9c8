"""The documents of the repository, taken apart: files, sections, code blocks."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@cache
def documents() -> tuple[str, ...]:
    """All Markdown files, as paths from the root."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    hidden = (".venv", "node_modules", "runs", "dist", "build")
    return tuple(
        sorted(p.as_posix() for p in found if not p.parts[0].startswith(".") and p.parts[0] not in hidden)
    )


@cache
def text_of(file: str) -> str:
    """The text of a file, by its path from the root."""
    return (ROOT / file).read_text(encoding="utf-8")


def section(file: str, title: str) -> str:
    """What stands under a heading of the second level."""
    parts = text_of(file).split(f"\n## {title}\n")
    assert len(parts) == 2, f"{file} has {len(parts) - 1} sections {title!r}"
    return parts[1].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[list[str]]:
    """The code blocks of one language, each as its lines."""
    return [body.splitlines() for name, body in _FENCE.findall(text) if name == language]


def without_blocks(text: str) -> str:
    """The prose between the code blocks."""
    return _FENCE.sub("", text)
