"""Evaluate: how good a student is on labelled images, and how sure that is.

python -m fourds_dist.evaluate runs/photos-to-sketches                       on its own target's test split
python -m fourds_dist.evaluate runs/photos-to-sketches s3://bucket/paintings on another dataset folder
python -m fourds_dist.evaluate student.onnx photos/                          on a folder with a sub-folder per class
python -m fourds_dist.evaluate student.safetensors photos/ --json scores.json

STUDENT is a run's folder, a checkpoint (.../distill/checkpoint-...), or a file .safetensors, .pt2 or .onnx; paths or
URLs. Intervals are at 95 %: Wilson's for accuracies, the bootstrap's for means over classes and the calibration error.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from fourds_dist.command import Answer, answered
from fourds_dist.data.image_options import ImageOptions, add_grey_range, add_max_megapixels
from fourds_dist.option_types import MOST_IMAGES, whole
from fourds_dist.terminal import say


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m fourds_dist.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("student", metavar="STUDENT", help="run, checkpoint or file")
    parser.add_argument("data", metavar="DATA", nargs="?", help="dataset folder, shards or image folder (default: the "
                        "run's target)")  # fmt: skip
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="test",
        help="of a dataset folder (default: test)",
    )
    parser.add_argument(
        "--batch-size", type=whole(1, MOST_IMAGES), default=128, help="images per forward pass (default: 128)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write everything there, path or URL; -: only JSON, to stdout"
    )
    add_grey_range(parser, "as the student was trained")
    add_max_megapixels(parser, "as in training")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.evaluate`; gives the exit status."""
    return answered(parser(), arguments, _evaluate)


def _evaluate(options: argparse.Namespace) -> Answer:
    from rich.console import Console

    from fourds_dist.results.images import open_labelled
    from fourds_dist.results.loading import load_student
    from fourds_dist.results.measure import measure
    from fourds_dist.storage import check_file, write_bytes

    looks = ImageOptions.of(options)
    if options.json not in (None, "-"):
        check_file(options.json)
    student = load_student(options.student)
    student = replace(student, preprocessing=looks.changed(student.preprocessing))
    data, key = options.data, "DATA"
    if data is None:
        data, key = student.about.get("domain"), "its target"
    if not data:
        raise ValueError(f"{options.student} does not say what its target is; give DATA")
    images = open_labelled(data, student.classes, options.split, key=key)
    measured = measure(student, images, batch_size=options.batch_size)
    for line in images.left_out:
        say(line, file=sys.stderr)
    text = json.dumps(measured.as_dict(), indent=2) + "\n"
    if options.json == "-":
        sys.stdout.write(text)
        return None
    measured.show(Console())
    if options.json:
        write_bytes(options.json, text.encode())
    return None


if __name__ == "__main__":
    sys.exit(main())
