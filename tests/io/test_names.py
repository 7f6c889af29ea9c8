"""Names as text: one Unicode form, and bytes that are no UTF-8 can be shown wherever they go."""

from __future__ import annotations

import io
import os
import sys

import pytest

from fourds_dist.io.names import check_text, composed, shown, write_any_name

LATIN = os.fsdecode(b"K\xf6ter")


def test_forms_and_bytes() -> None:
    assert composed("Ko\u0308ter") == "Köter"
    assert shown(LATIN) == r"K\xf6ter"
    assert shown("Köter") == "Köter"
    check_text("Köter", "a folder")
    with pytest.raises(ValueError, match=r"^a folder has a name that is not in UTF-8: K\\xf6ter; rename it"):
        check_text(LATIN, "a folder")


def test_any_name_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict"))
    write_any_name()
    print(LATIN, flush=True)
    assert sys.stdout.buffer.getvalue() == b"K\\udcf6ter\n"  # pyright: ignore[reportAttributeAccessIssue]
