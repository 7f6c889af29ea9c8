"""Pack: pack images into dataset folders of shards.

python -m fourds_dist.pack --help
"""

import sys

from fourds_dist.cli.pack import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
