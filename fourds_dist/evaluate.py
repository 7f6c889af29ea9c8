"""Evaluate: evaluate a student on labelled images.

python -m fourds_dist.evaluate --help
"""

import sys

from fourds_dist.cli.evaluate import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
