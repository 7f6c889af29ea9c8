"""Networks this small are no faster on more threads, and far slower beside other work."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    pass
