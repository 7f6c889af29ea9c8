"""Predict: classes of image files and folders by a student.

python -m fourds_dist.predict runs/photos-to-sketches holiday.jpg
python -m fourds_dist.predict student.onnx pictures/ more/*.png --top 3
python -m fourds_dist.predict student.safetensors pictures/ --json | jq .label

STUDENT is a run's folder, a checkpoint, or a file .safetensors, .pt2 or .onnx, at a path or URL; or a repository of the
Hugging Face hub, hf://owner/name or hf://owner/name@revision. Files that cannot be read as images are listed on stderr,
and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from fourds_dist.cli.command import ExitStatus, command_parser, run_command
from fourds_dist.cli.image_options import ImageOptions, add_grey_range, add_max_megapixels
from fourds_dist.cli.student_options import add_student_name, load_named_student
from fourds_dist.io.terminal import in_line, say


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("python -m fourds_dist.predict", __doc__)
    parser.add_argument("student", metavar="STUDENT", help="run, checkpoint, file or hf://owner/name")
    parser.add_argument("files", metavar="IMAGE", nargs="+", help="image file, or folder of images")
    parser.add_argument(
        "--top", type=int, default=1, metavar="N", help="number of most likely classes to print (default: 1)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON per image instead of the table"
    )
    add_student_name(parser)
    add_grey_range(parser, "as the student was trained")
    add_max_megapixels(parser, "as in training")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.predict`; return the exit status."""
    return run_command(parser(), arguments, _predict)


def _predict(options: argparse.Namespace) -> ExitStatus:
    from fourds_dist.inference.images import open_files

    if options.top < 1:
        raise ValueError(f"--top {options.top}: give 1 or more")
    image_options = ImageOptions.of(options)
    images = open_files(options.files)
    student = load_named_student(options)
    student = replace(student, preprocessing=image_options.changed(student.preprocessing))
    width = max(len(in_line(str(path))) for path in images.paths)
    for prediction in student.ranked(images, options.top):
        if options.json:
            ranking = [{"class": name, "probability": p} for name, p in prediction.ranking]
            print(
                json.dumps(
                    {
                        "file": prediction.file,
                        "label": prediction.label,
                        "probability": prediction.confidence,
                        "ranking": ranking,
                    }
                )
            )
        else:
            say(
                f"{in_line(prediction.file):<{width}}  "
                + "  ".join(f"{name} {p:6.1%}" for name, p in prediction.ranking)
            )
    for line in images.left_out:
        say(line, file=sys.stderr)
    for line in images.not_read:
        say(line, file=sys.stderr)
    return 1 if images.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
