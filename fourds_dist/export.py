"""Export: export a student to formats that run without fourds_dist.

python -m fourds_dist.export --help
"""

import sys

from fourds_dist.cli.export import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
