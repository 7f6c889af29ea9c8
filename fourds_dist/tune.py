"""Tune: search the best values of keys with many runs.

python -m fourds_dist.tune --help
"""

import sys

from fourds_dist.cli.tune import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
