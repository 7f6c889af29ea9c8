"""Storage of checkpoints as `checkpoint-00000120/state.pt` under a folder or URL, written during training.

Writes are atomic (`storage.write_bytes`), so the last complete checkpoint survives a kill at any time. A thread writes
one checkpoint at a time; training waits only if the next checkpoint is due before the last one is written. The newest
`keep` checkpoints are retained; older ones are removed after a newer one is complete.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch

from fourds_dist.io.error_text import error_line
from fourds_dist.io.retry import with_retries
from fourds_dist.io.storage import locate, write_bytes
from fourds_dist.runs.layout import CHECKPOINT_STATE, checkpoint_name, checkpoint_step
from fourds_dist.training.checkpoint.learning_state import decode_state

_log = logging.getLogger(__name__)


class CheckpointStore(Protocol):
    """Storage of checkpoints."""

    def save(
        self, state: dict[str, Any] | None, step: int, accuracies: dict[str, float], *, wait: bool = False
    ) -> None:
        """Store `state`, given on rank 0 only and not changed afterwards. A collective call.

        Args:
            wait: return after the checkpoint is written.
        """
        ...

    def newest(self) -> str | None:
        """Return the name of the newest complete checkpoint."""
        ...

    def read(self, name: str) -> dict[str, Any]:
        """Return the state of a checkpoint, on the CPU."""
        ...

    def close(self) -> None:
        """Wait for pending writes; called on every rank."""
        ...


class FolderStore:
    """Checkpoints under a folder or URL.

    Args:
        keep: number of complete checkpoints to retain; None: the caller removes checkpoints by `prune`.
        retry_timeout_s: seconds for which a failing write or read is retried.
        note: receives one line per storage error; called from the writing thread.
    """

    def __init__(
        self,
        url: str,
        *,
        keep: int | None = 2,
        retry_timeout_s: float = 300.0,
        note: Callable[[str], None] = _log.warning,
    ) -> None:
        self.url = url.rstrip("/")
        self._keep = keep
        self._note = note
        self._options: dict[str, Any] = {"retry_timeout_s": retry_timeout_s, "note": note}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(
        self, state: dict[str, Any] | None, step: int, accuracies: dict[str, float], *, wait: bool = False
    ) -> None:
        """Start to write the checkpoint after the previous one is written.

        Raises:
            OSError: the previous checkpoint, or with `wait` this one, could not be written.
        """
        del accuracies
        if state is None:
            return
        self._finish()
        self._pending = self._writer.submit(self.write, state, checkpoint_name(step))
        if wait:
            self._finish()

    def write(self, state: dict[str, Any], name: str) -> None:
        """Write a checkpoint in this thread, and remove old ones."""
        data = io.BytesIO()
        torch.save(state, data)
        url = f"{self.url}/{name}/{CHECKPOINT_STATE}"
        what = f"checkpoint {url} could not be written"
        with_retries(lambda: write_bytes(url, data.getvalue()), what, **self._options)
        if self._keep is not None:
            self.prune(self._complete()[-self._keep :])

    def newest(self) -> str | None:
        """Return the name of the newest complete checkpoint, or None."""
        complete = self._complete()
        return complete[-1] if complete else None

    def read(self, name: str) -> dict[str, Any]:
        """Return the state of a checkpoint.

        Raises:
            ValueError: the file is truncated, not a checkpoint of this package, of another format, or contains pickled
                code.
        """
        url = f"{self.url}/{name}/{CHECKPOINT_STATE}"
        fs, path = locate(url)
        data: Any = with_retries(
            lambda: fs.cat_file(path), f"checkpoint {url} could not be read", **self._options
        )
        return decode_state(data, url)

    def close(self) -> None:
        """Wait for a pending write."""
        self._finish()

    def _finish(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def prune(self, kept: Collection[str]) -> None:
        """Remove all checkpoints, complete or not, that are older than the newest of `kept` and not in `kept`.

        Checkpoints that cannot be removed are reported, and removed by a later call.
        """
        fs, path = locate(self.url)
        newest = max((_step_of(name) for name in kept), default=0)
        what, failure = f"checkpoints under {self.url}", None
        try:
            folders = fs.glob(f"{path}/checkpoint-*")
        except Exception as error:
            folders, failure = [], error
        for folder in folders:
            name = str(folder).rstrip("/").rpartition("/")[2]
            if name not in kept and 0 <= _step_of(name) < newest:
                try:
                    fs.rm(str(folder), recursive=True)
                except Exception as error:
                    what, failure = f"checkpoint {self.url}/{name}", error
        if failure is not None:
            self._note(f"{what} could not be removed yet ({error_line(failure)})")

    def _complete(self) -> list[str]:
        fs, path = locate(self.url)

        def names() -> list[str]:
            fs.invalidate_cache()
            return [str(file).split("/")[-2] for file in fs.glob(f"{path}/checkpoint-*/{CHECKPOINT_STATE}")]

        found = with_retries(names, f"{self.url} could not be listed", **self._options)
        return [name for step, name in sorted((_step_of(name), name) for name in found) if step >= 0]


def _step_of(name: str) -> int:
    """Return the step of a checkpoint by its name; -1 for other names."""
    step = checkpoint_step(name)
    return -1 if step is None else step
