"""Train: train the teacher on the source, then 4Ds on the target.

python -m fourds_dist.train --help
"""

import sys

from fourds_dist.cli.train import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
