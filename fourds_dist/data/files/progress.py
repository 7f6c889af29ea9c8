"""Progress of work on many files."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int | None], None]
"""(name of the work, number done, total number or None if unknown)"""
