"""Fixtures of the tests of reports."""

from __future__ import annotations

from tests.reports.reported import reported  # noqa: F401  (fixture)
