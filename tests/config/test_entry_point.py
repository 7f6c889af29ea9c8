"""Entry points: functions of modules by name, and names that are none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fourds_dist.config.entry_point import entry_point


def test_a_function_is_imported_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry_point("math:sqrt", what="architecture", takes="x") is math.sqrt
    assert entry_point("os.path:join", what="architecture", takes="x")("a", "b") == str(Path("a/b"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "fourds_entry_point.py").write_text("def net(num_classes):\n    return num_classes + 1\n")
    assert entry_point("fourds_entry_point:net", what="architecture", takes="x")(4) == 5


@pytest.mark.parametrize(
    "name", ["", "math", "math:", ":sqrt", "math:sqrt:x", "math.:sqrt", "a-b:c", "m:a.b", "/a.py:f"]
)
def test_other_forms_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^architecture '.*': the name has the form package\.module:function$"
    ):
        entry_point(name, what="architecture", takes="num_classes")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_such_module.nets:net",
            r"'no_such_module\.nets' cannot be imported \(No module named .*PYTHONPATH on every",
        ),
        ("math:net", r"^architecture 'math:net': math has no 'net'$"),
        ("math:pi", "^architecture 'math:pi': a function that takes num_classes is needed$"),
    ],
)
def test_what_is_no_function_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        entry_point(name, what="architecture", takes="num_classes")
