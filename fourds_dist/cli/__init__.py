"""The commands: arguments, calls into the package, and printed results."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `fourds`; return the exit status. See `fourds_dist.cli.dispatch`."""
    from fourds_dist.cli.dispatch import main

    return main(arguments)
