"""Tests of unreadable files: root can read every file, so they run as the user nobody."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user who is not root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)


@contextmanager
def privileged() -> Iterator[None]:
    """As the user who runs the tests."""
    user = os.geteuid()
    if os.getuid() == 0:
        os.seteuid(0)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(user)


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """An empty folder that every user may read; pytest's folders are readable by one user."""
    folder = Path(tempfile.mkdtemp(prefix="fourds-rights-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
