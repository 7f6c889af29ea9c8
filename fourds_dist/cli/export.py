"""Export: a student in formats that run without fourds_dist, each compared with the student before writing.

python -m fourds_dist.export runs/photos-to-sketches shipped/
python -m fourds_dist.export runs/photos-to-sketches s3://bucket/shipped --formats onnx,int8
python -m fourds_dist.export student.safetensors shipped/ --data photos/
python -m fourds_dist.export runs/photos-to-sketches --push hf://owner/name --private

Formats: safetensors (weights), torch-export (PyTorch programs), onnx, int8 (ONNX with 8-bit integers; may lose
--max-loss of accuracy). The model card DEST/README.md has code that runs each format. onnx and int8 need the extra
`export`; `fourds doctor` prints the command that installs it. A format whose outputs differ from the student's on real
images is refused: its file is not written, and the exit status is 1.

--push writes all files to a repository of the Hugging Face hub in one commit (hf://owner/name@branch: on a branch), and
needs a token that may write, in HF_TOKEN or from `hf auth login`. Nothing is pushed if the repository has the same
student already. `fourds predict hf://owner/name IMAGE`, `fourds evaluate` and student.start=hf://owner/name read it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fourds_dist.cli.command import ExitStatus, command_parser, run_command
from fourds_dist.cli.option_types import real
from fourds_dist.cli.student_options import add_student_name, load_named_student
from fourds_dist.io.terminal import say

if TYPE_CHECKING:
    from fourds_dist.inference.export.exported import Exported

DEFAULT = "safetensors,torch-export,onnx"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("python -m fourds_dist.export", __doc__)
    parser.add_argument("student", metavar="STUDENT", help="run, checkpoint or .safetensors file")
    add_student_name(parser)
    parser.add_argument("dest", metavar="DEST", nargs="?", help="folder or URL; not needed with --push")
    parser.add_argument(
        "--formats", default=DEFAULT, metavar="A,B", help=f"comma-separated (default: {DEFAULT})"
    )
    parser.add_argument("--push", metavar="hf://OWNER/NAME", help="also push the files to this repository")
    parser.add_argument("--private", action="store_true", help="make a new repository of --push private")
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
    from fourds_dist.inference.export.push import Destination, check_push, push

    if options.dest is None and options.push is None:
        raise ValueError("give DEST, a folder or URL, or --push hf://owner/name")
    if options.private and options.push is None:
        raise ValueError("--private is for --push hf://owner/name")
    formats = list(dict.fromkeys(name.strip() for name in options.formats.split(",") if name.strip()))
    destination = None if options.push is None else Destination.of(options.push, is_private=options.private)
    with tempfile.TemporaryDirectory() as here:
        dest = options.dest or here
        check_request(dest, formats)
        if destination is not None:
            check_push(destination)
        student = load_named_student(options)
        done, refused = export(student, dest, formats, data=options.data, most_loss=options.max_loss)
        if done:
            show(done, Console())
        if done and options.dest:
            say(f"model card: {options.dest.rstrip('/')}/README.md")
        if done and destination is not None:
            commit = push(_copied(dest, done, Path(here)), destination)
            say(
                f"pushed to {destination.url}: {commit}"
                if commit
                else f"{destination.url} has these files already"
            )
    for format_, why in refused.items():
        say(f"error: {format_} is refused and not written: {why}", file=sys.stderr)
    return 1 if refused else 0


def _copied(dest: str, done: Sequence[Exported], folder: Path) -> Path:
    """Return a folder with copies of the exported files of `dest` alone, which may have other files."""
    from fourds_dist.inference.export.model_card import CARD
    from fourds_dist.stages.finished_run import read_bytes

    pushed = folder / "pushed"
    pushed.mkdir()
    for file in (CARD, *(exported.file for exported in done)):
        (pushed / file).write_bytes(read_bytes(f"{dest.rstrip('/')}/{file}"))
    return pushed


if __name__ == "__main__":
    sys.exit(main())
