"""Errors of storage."""

from __future__ import annotations


class StorageError(OSError):
    """Storage still failed after all retries; `errno` is that of the last error."""
