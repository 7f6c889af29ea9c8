"""Fixtures of the tests of advice."""

from __future__ import annotations

import pytest

from tests.experiments.advise.small import write_domains


@pytest.fixture(scope="package")
def domains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A light source and a dark target: name -> shards."""
    return write_domains(tmp_path_factory.mktemp("domains"))
