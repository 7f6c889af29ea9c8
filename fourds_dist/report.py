"""Report: write the report of a run, or of several runs side by side.

python -m fourds_dist.report --help
"""

import sys

from fourds_dist.cli.report import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
