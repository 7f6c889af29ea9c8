"""Predict: what a student says of image files and folders.

python -m fourds_dist.predict runs/photos-to-sketches holiday.jpg
python -m fourds_dist.predict student.onnx pictures/ more/*.png --top 3
python -m fourds_dist.predict student.safetensors pictures/ --json | jq .label

STUDENT is a run's folder, a checkpoint, or a file .safetensors, .pt2 or .onnx; paths or URLs. Files that cannot be read
as images are told on stderr, and make the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from fourds_dist.command import Answer, answered
from fourds_dist.data.image_options import ImageOptions, add_grey_range, add_max_megapixels
from fourds_dist.terminal import in_line, say


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m fourds_dist.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("student", metavar="STUDENT", help="run, checkpoint or file")
    parser.add_argument("files", metavar="IMAGE", nargs="+", help="image file, or folder of images")
    parser.add_argument(
        "--top", type=int, default=1, metavar="N", help="the N likeliest classes (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON per image instead of the table")
    add_grey_range(parser, "as the student was trained")
    add_max_megapixels(parser, "as in training")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.predict`; gives the exit status."""
    return answered(parser(), arguments, _predict)


def _predict(options: argparse.Namespace) -> Answer:
    from fourds_dist.results.images import open_files
    from fourds_dist.results.loading import load_student

    if options.top < 1:
        raise ValueError(f"--top {options.top}: give 1 or more")
    looks = ImageOptions.of(options)
    images = open_files(options.files)
    student = load_student(options.student)
    student = replace(student, preprocessing=looks.changed(student.preprocessing))
    width = max(len(in_line(str(path))) for path in images.paths)
    for told in student.ranked(images, options.top):
        if options.json:
            ranking = [{"class": name, "probability": p} for name, p in told.ranking]
            print(
                json.dumps(
                    {
                        "file": told.file,
                        "label": told.label,
                        "probability": told.confidence,
                        "ranking": ranking,
                    }
                )
            )
        else:
            say(
                f"{in_line(told.file):<{width}}  " + "  ".join(f"{name} {p:6.1%}" for name, p in told.ranking)
            )
    for line in images.left_out:
        say(line, file=sys.stderr)
    for path, why in images.unreadable.items():
        say(f"{in_line(str(path))}: not read: {why}", file=sys.stderr)
    return 1 if images.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
