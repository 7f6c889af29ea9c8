"""A minute of fuzzing: the same cases every time; `python -m tests.fuzz` draws fresh ones."""

from __future__ import annotations

import pytest

from tests.fuzz.bounds import FaultError
from tests.fuzz.running import TARGETS, keep, run_cases

NUM_CASES = 50


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_file_holds_is_read_or_refused_in_words(name, tmp_path):
    target = TARGETS[name]
    why = ""
    try:
        run_cases(target, num_cases=max(10, int(NUM_CASES * target.share)), fresh_seed=None)
    except FaultError as error:
        folder = keep(name, error.files, str(error), tmp_path)  # pyright: ignore[reportAttributeAccessIssue]
        why = f"{error}\nthe case lies in {folder}"
    if why:
        pytest.fail(why, pytrace=False)
