"""Compare: compare methods on pairs of domains with several seeds.

python -m fourds_dist.compare --help
"""

import sys

from fourds_dist.cli.compare import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
