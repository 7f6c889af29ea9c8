"""What is fuzzed: valid files, how they are changed, and what reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.bounds import GROWTH_BYTES
from tests.fuzz.mutations import Draw

Files = dict[str, bytes]
"""Name -> content of the files of one case."""


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Args:
        name: of it, for the command line.
        cases: draws the files of a case.
        read: reads the folder in which they were written; ValueError and OSError refuse it.
        growth_bytes: memory that reading may take.
        share: of cases, relative to the others'.
        shrinks: whether a failing case is made small, which takes hundreds of readings.
    """

    name: str
    cases: st.SearchStrategy[Files]
    read: Callable[[Path], object]
    growth_bytes: int = GROWTH_BYTES
    share: float = 1.0
    shrinks: bool = True


def cases(build: Callable[[Draw], Files]) -> st.SearchStrategy[Files]:
    """A strategy from a function of hypothesis' `draw`."""

    @st.composite
    def drawn(draw: Any) -> Files:
        return build(draw)

    return drawn()
