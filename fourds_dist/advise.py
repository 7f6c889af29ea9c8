"""Advise: say which method to take, what it will reach and what it will cost.

python -m fourds_dist.advise --help
"""

import sys

from fourds_dist.cli.advise import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
