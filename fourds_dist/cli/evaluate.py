"""Evaluate: accuracy and calibration of a student on labelled images, with confidence intervals.

python -m fourds_dist.evaluate runs/photos-to-sketches                       on the test split of its target
python -m fourds_dist.evaluate runs/photos-to-sketches s3://bucket/paintings on another dataset folder
python -m fourds_dist.evaluate runs/sizes --student resnet10             one of several students of a run
python -m fourds_dist.evaluate student.onnx photos/                          on a folder with a sub-folder per class
python -m fourds_dist.evaluate student.safetensors photos/ --json scores.json

STUDENT is a run's folder, a checkpoint (.../distill/checkpoint-...), or a file .safetensors, .pt2 or .onnx, at a path
or URL; or a repository of the Hugging Face hub, hf://owner/name or hf://owner/name@revision. 95 % intervals: Wilson for
accuracies, bootstrap for means over classes and the calibration error.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from fourds_dist.cli.command import ExitStatus, command_parser, run_command
from fourds_dist.cli.image_options import ImageOptions, add_grey_range, add_max_megapixels
from fourds_dist.cli.option_types import MOST_IMAGES, whole
from fourds_dist.cli.student_options import add_student_name, load_named_student
from fourds_dist.io.terminal import say

MOST_NAMED = 10
"""Files that cannot be read and are named; the others are counted."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("python -m fourds_dist.evaluate", __doc__)
    parser.add_argument("student", metavar="STUDENT", help="run, checkpoint, file or hf://owner/name")
    parser.add_argument("data", metavar="DATA", nargs="?", help="dataset folder, shards or image folder (default: the "
                        "run's target)")  # fmt: skip
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="test",
        help="split of a dataset folder (default: test)",
    )
    parser.add_argument(
        "--batch-size", type=whole(1, MOST_IMAGES), default=128, help="images per forward pass (default: 128)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write the results to this path or URL; -: print only JSON"
    )
    add_student_name(parser)
    add_grey_range(parser, "as the student was trained")
    add_max_megapixels(parser, "as in training")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.evaluate`; return the exit status."""
    return run_command(parser(), arguments, _evaluate)


def _evaluate(options: argparse.Namespace) -> ExitStatus:
    from rich.console import Console

    from fourds_dist.inference.evaluate import evaluate_student
    from fourds_dist.inference.images import open_labelled
    from fourds_dist.io.storage import check_file, write_bytes

    image_options = ImageOptions.of(options)
    if options.json not in (None, "-"):
        check_file(options.json)
    student = load_named_student(options)
    student = replace(student, preprocessing=image_options.changed(student.preprocessing))
    data, key = options.data, "DATA"
    if data is None:
        data, key = student.about.get("domain"), "its target"
    if not data:
        raise ValueError(f"{options.student} does not name its target; give DATA")
    images = open_labelled(data, student.classes, options.split, key=key)
    result = evaluate_student(student, images, batch_size=options.batch_size)
    not_read = images.not_read
    more = [f"and {len(not_read) - MOST_NAMED} more files not read"] * (len(not_read) > MOST_NAMED)
    for line in (*images.left_out, *not_read[:MOST_NAMED], *more):
        say(line, file=sys.stderr)
    text = json.dumps(result.as_dict(), indent=2) + "\n"
    if options.json == "-":
        sys.stdout.write(text)
        return None
    result.show(Console())
    if options.json:
        write_bytes(options.json, text.encode())
    return None


if __name__ == "__main__":
    sys.exit(main())
