"""An error of storage is an OSError, and survives a pickle."""

from __future__ import annotations

import errno
import pickle

from fourds_dist.io.errors import StorageError


def test_number_and_message() -> None:
    error = StorageError(errno.ENOSPC, "a could not be written")
    for found in (error, pickle.loads(pickle.dumps(error))):
        assert type(found) is StorageError
        assert isinstance(found, OSError)
        assert (found.errno, str(found)) == (errno.ENOSPC, "[Errno 28] a could not be written")
