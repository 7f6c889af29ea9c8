"""Fixtures of the tests of comparisons."""

from __future__ import annotations

from tests.experiments.compare.known import known, plan  # noqa: F401  (fixtures)
