"""rclone's S3 server for tests: start, and the environment of its clients."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

KEY, SECRET = "test-access-key-0000", "test-secret-key-000000000000"


def serving(folder: str, address: str, config: str) -> list[str]:
    """The command of a server whose buckets are the folders of `folder`; it checks signatures.

    Args:
        address: HOST:PORT to listen on; port 0 takes a free one.
        config: path of a configuration file that need not exist.
    """
    return [
        shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone",
        *("serve", "s3", folder, "--addr", address, "--auth-key", f"{KEY},{SECRET}", "--config", config),
        # Listings that expire would miss an object now and then that was written while they were read anew.
        *("--vfs-cache-mode", "off", "--dir-cache-time", "24h"),
    ]


def reaching(endpoint: str) -> dict[str, str]:
    """The environment of a client, but for its region."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "FSSPEC_S3_ENDPOINT_URL": endpoint,
    }
