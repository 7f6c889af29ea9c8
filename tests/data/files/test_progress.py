"""The progress bar of packing takes what producers of progress give."""

from __future__ import annotations

from typing import get_args, get_type_hints

from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.pack.console import PackProgress


def test_the_bar_takes_every_call() -> None:
    given, result = get_args(OnProgress)
    hints = get_type_hints(PackProgress.__call__)
    assert [hints[name] for name in hints if name != "return"] == given == [str, int, int | None]
    assert result is None
    assert hints["return"] is type(None)
    with PackProgress("title") as bar:
        for call in (("reading", 1, None), ("reading", 2, None), ("checking", 0, 5), ("checking", 5, 5)):
            bar(*call)
