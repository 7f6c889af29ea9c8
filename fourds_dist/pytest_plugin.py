"""Plugin of pytest: option `--fixture FILE`, the numbers of the released code that `pytest -k fixture` reproduces.

An option in tests/conftest.py would be declared too late: pytest takes the file after an unknown option as a path of
tests, and searches the configuration of the project there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option; its default is the file in tests/method/."""
    parser.getgroup("fourds_dist").addoption(
        "--fixture",
        type=Path,
        help="numbers of the released code to reproduce, in the format of tests/method/released_step.json",
    )
