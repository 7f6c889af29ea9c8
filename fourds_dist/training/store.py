"""Where checkpoints lie: `checkpoint-00000120/state.pt` under a folder or URL, written beside training.

A checkpoint appears whole or not at all (`storage.write_bytes`), so that a kill at any instant leaves the last good
one. One is written at a time, by a thread: training goes on meanwhile, and waits only where the next one comes due
before the last one is written. Policy: the newest `keep` stay; older ones go once a newer one is whole.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch

from fourds_dist.runs.layout import CHECKPOINT_STATE, checkpoint_name, checkpoint_step
from fourds_dist.storage import locate, write_bytes
from fourds_dist.training.checkpoint import decode_state
from fourds_dist.training.patience import patiently, short

_log = logging.getLogger(__name__)


class CheckpointStore(Protocol):
    """Where checkpoints go."""

    def save(
        self, state: dict[str, Any] | None, step: int, accuracies: dict[str, float], *, wait: bool = False
    ) -> None:
        """Keep `state`, which rank 0 alone gives and nobody changes afterwards; every rank calls it together.

        Args:
            wait: come back only once it is written.
        """
        ...

    def newest(self) -> str | None:
        """Name of the newest whole checkpoint."""
        ...

    def read(self, name: str) -> dict[str, Any]:
        """A checkpoint's state, on the CPU."""
        ...

    def close(self) -> None:
        """Wait for what is still being written; every rank calls it."""
        ...


class FolderStore:
    """Checkpoints under a folder or URL.

    Args:
        keep: whole checkpoints that stay; None: someone else removes them, by `prune`.
        patience_s: how long a failing write or read is tried again.
        note: told of storage trouble, in one line each; called from the writing thread.
    """

    def __init__(
        self,
        url: str,
        *,
        keep: int | None = 2,
        patience_s: float = 300.0,
        note: Callable[[str], None] = _log.warning,
    ) -> None:
        self.url = url.rstrip("/")
        self._keep = keep
        self._note = note
        self._options: dict[str, Any] = {"patience_s": patience_s, "note": note}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None

    def save(
        self, state: dict[str, Any] | None, step: int, accuracies: dict[str, float], *, wait: bool = False
    ) -> None:
        """Start writing, after the last one is written.

        Raises:
            OSError: the last one could not be written, or with `wait` this one.
        """
        del accuracies
        if state is None:
            return
        self._finish()
        self._under_way = self._writer.submit(self.write, state, checkpoint_name(step))
        if wait:
            self._finish()

    def write(self, state: dict[str, Any], name: str) -> None:
        """Write a checkpoint now, and remove those that the policy lets go."""
        data = io.BytesIO()
        torch.save(state, data)
        url = f"{self.url}/{name}/{CHECKPOINT_STATE}"
        what = f"checkpoint {url} could not be written"
        patiently(lambda: write_bytes(url, data.getvalue()), what, **self._options)
        if self._keep is not None:
            self.prune(self._whole()[-self._keep :])

    def newest(self) -> str | None:
        """Name of the newest whole checkpoint, or None."""
        whole = self._whole()
        return whole[-1] if whole else None

    def read(self, name: str) -> dict[str, Any]:
        """A checkpoint's state.

        Raises:
            ValueError: truncated, not one of ours, of another format, or holding pickled code.
        """
        url = f"{self.url}/{name}/{CHECKPOINT_STATE}"
        fs, path = locate(url)
        data: Any = patiently(
            lambda: fs.cat_file(path), f"checkpoint {url} could not be read", **self._options
        )
        return decode_state(data, url)

    def close(self) -> None:
        """Wait for what is still being written."""
        self._finish()

    def _finish(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def prune(self, kept: Collection[str]) -> None:
        """Remove what is older than the newest of `kept` and not among them, whole or as a kill left it.

        What cannot be removed is noted, and goes at a later turn.
        """
        fs, path = locate(self.url)
        newest = max((_step_of(name) for name in kept), default=0)
        what, trouble = f"checkpoints under {self.url}", None
        try:
            folders = fs.glob(f"{path}/checkpoint-*")
        except Exception as error:
            folders, trouble = [], error
        for folder in folders:
            name = str(folder).rstrip("/").rpartition("/")[2]
            if name not in kept and 0 <= _step_of(name) < newest:
                try:
                    fs.rm(str(folder), recursive=True)
                except Exception as error:
                    what, trouble = f"checkpoint {self.url}/{name}", error
        if trouble is not None:
            self._note(f"{what} could not be removed yet ({short(trouble)})")

    def _whole(self) -> list[str]:
        fs, path = locate(self.url)

        def names() -> list[str]:
            fs.invalidate_cache()
            return [str(file).split("/")[-2] for file in fs.glob(f"{path}/checkpoint-*/{CHECKPOINT_STATE}")]

        found = patiently(names, f"{self.url} could not be listed", **self._options)
        return [name for step, name in sorted((_step_of(name), name) for name in found) if step >= 0]


def _step_of(name: str) -> int:
    """The step of a checkpoint of this name; -1 for what is no checkpoint."""
    step = checkpoint_step(name)
    return -1 if step is None else step
