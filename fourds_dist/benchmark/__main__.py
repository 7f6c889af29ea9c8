"""Command line of the benchmarks: `python -m fourds_dist.benchmark NAME ...`, a name of `BENCHMARKS`.

A benchmark is a module of this package with `add_arguments(parser)` and `run(options)`. Only the requested benchmark is
imported, so that the operators can be timed without the dependencies of `data` and `launch`.
"""

import argparse
import importlib
import sys

BENCHMARKS = {
    "ops": "Fourier operators: released form, half spectrum, fused kernels, and copies of the same bytes",
    "norm": "BatchNorm with residual sum and activation: PyTorch, cuDNN, compiled, fused kernels, copies, and steps",
    "step": "training steps: images per second and peak memory",
    "profile": "time of a training step by kind of kernel and by kernel",
    "numerics": "bfloat16 against float32: loss curves and accuracies on the quickstart's images",
    "data": "data path: images per second from storage to the device",
    "scaling": "training on several devices or processes",
    "host": "all of the scaling of one host with several GPUs, within a time limit",
    "sweep": "overhead of a sweep, measured with trials without training",
    "criteria": "regret of the label-free criteria in runs with hidden labels",
    "advise": "picks and intervals of `fourds advise` against a finished comparison",
    "families": "families of timm: which can be teacher and student without named stages",
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
    except ValueError as error:  # errors of the user; other exceptions are bugs
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
