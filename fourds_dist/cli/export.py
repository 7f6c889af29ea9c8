"""Export: a student in formats that run without fourds_dist, each compared with the student before writing.

python -m fourds_dist.export runs/photos-to-sketches shipped/
python -m fourds_dist.export runs/photos-to-sketches s3://bucket/shipped --formats onnx,int8
python -m fourds_dist.export student.safetensors shipped/ --data photos/

Formats: safetensors (weights), torch-export (PyTorch programs), onnx, int8 (ONNX with 8-bit integers; may lose
--max-loss of accuracy). The model card DEST/README.md has code that runs each format. onnx and int8 need the extra
`export`; `fourds doctor` prints the command that installs it. A format whose outputs differ from the student's on real
images is refused: its file is not written, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys

from fourds_dist.cli.command import ExitStatus, command_parser, run_command
from fourds_dist.cli.option_types import real
from fourds_dist.io.terminal import say

DEFAULT = "safetensors,torch-export,onnx"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("python -m fourds_dist.export", __doc__)
    parser.add_argument("student", metavar="STUDENT", help="run, checkpoint or .safetensors file")
    parser.add_argument("dest", metavar="DEST", help="folder or URL")
    parser.add_argument(
        "--formats", default=DEFAULT, metavar="A,B", help=f"comma-separated (default: {DEFAULT})"
    )
    parser.add_argument("--data", metavar="DATA", help="images for the comparison, labelled or not: dataset or image "
                        "folder (default: the test split of the student's target)")  # fmt: skip
    parser.add_argument(
        "--max-loss",
        type=real(0, 1),
        default=0.01,
        metavar="X",
        help="accuracy that int8 may lose (default: 0.01)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.export`; return the exit status."""
    return run_command(parser(), arguments, _export)


def _export(options: argparse.Namespace) -> ExitStatus:
    from rich.console import Console

    from fourds_dist.inference.export.export import check_request, export, show
    from fourds_dist.inference.loading import load_student

    formats = list(dict.fromkeys(name.strip() for name in options.formats.split(",") if name.strip()))
    check_request(options.dest, formats)
    student = load_student(options.student)
    done, refused = export(student, options.dest, formats, data=options.data, most_loss=options.max_loss)
    if done:
        show(done, Console())
        say(f"model card: {options.dest.rstrip('/')}/README.md")
    for format_, why in refused.items():
        say(f"error: {format_} is refused and not written: {why}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
