"""Predict: predict the classes of image files.

python -m fourds_dist.predict --help
"""

import sys

from fourds_dist.cli.predict import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
