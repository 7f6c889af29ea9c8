"""The benchmarks' command line: `python -m fourds_dist.benchmark ops|step|profile|numerics|data|scaling|sweep ...`.

A benchmark is a module of this package with `add_arguments(parser)` and `run(options)`; only the one asked for is
imported, so that the operators can be timed where the data and launch parts' dependencies are missing.
"""

import argparse
import importlib
import sys

BENCHMARKS = {
    "ops": "the Fourier operators: released form, half spectrum, fused, and the copies of the same bytes",
    "step": "whole training steps: images per second and peak memory",
    "profile": "where the time of a step goes, by kind of kernel and kernel by kernel",
    "numerics": "the fast mode against float32: loss curves and accuracies on the quickstart's images",
    "data": "the data path: images per second from storage to the device",
    "scaling": "training over several devices or processes",
    "sweep": "what a sweep costs besides its training, by trials that do none",
}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark named by the first argument."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m fourds_dist.benchmark", description="Benchmarks of fourds_dist."
    )
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="|".join(BENCHMARKS))
    for name, summary in BENCHMARKS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name in arguments[:1]:
            module = importlib.import_module(f"fourds_dist.benchmark.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except ValueError as error:  # what a person can mend; anything else is a fault of ours
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
