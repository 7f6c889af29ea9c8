"""Doctor: check whether this machine is ready to train.

python -m fourds_dist.doctor --help
"""

import sys

from fourds_dist.cli.doctor import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
