"""For pytest: `--fixture FILE`, which file of the released code's numbers `pytest -k fixture` is to reproduce.

An option that only tests/conftest.py knew would come too late: pytest takes the file after an option that it does not
know yet for a place to collect tests from, and looks for this project's configuration there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option; without it the test takes its own copy of the numbers."""
    parser.getgroup("fourds_dist").addoption(
        "--fixture",
        type=Path,
        help="numbers of the released code to reproduce, in the format of tests/method/authors_step.json",
    )
