"""Arguments of `python -m fourds_dist.pack`; `fourds_dist.cli.pack` runs them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from typing import Any

from fourds_dist.cli.image_options import add_grey_range, add_max_megapixels
from fourds_dist.cli.option_types import real, whole
from fourds_dist.data.datasets import folder, folder_layout, list_file
from fourds_dist.data.datasets.registry import DATASET_BUILDERS, BuilderArgument

_CLASSES = (
    "file of class names, one per line, in label order; or another dataset folder with the same classes"
)
_GREY_RANGE = "the range in the files, or the smallest and largest value of all images"
_MEGAPIXELS = "89; see data.max_megapixels"
_MOST_THREADS = 256


@cache
def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return the parser; `subcommand` of the parsed arguments is the word after `pack`."""
    parser = argparse.ArgumentParser(
        prog="python -m fourds_dist.pack",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subcommands = parser.add_subparsers(
        dest="subcommand", required=True, metavar="WHAT", title="what to pack"
    )

    def add(name: str, summary: str, description: str | None = None) -> argparse.ArgumentParser:
        added = subcommands.add_parser(
            name,
            help=summary,
            description=description or f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("--traceback", action="store_true", help="raise errors with a traceback")
        added.add_argument(
            "--threads",
            type=whole(1, _MOST_THREADS),
            default=2,
            help="number of shards or images processed in parallel (default 2)",
        )
        return added

    one = add("folder", "a folder of images, one sub-folder per class", folder.__doc__)
    one.add_argument("source", metavar="SRC", help="the folder")
    _add_file_options(one)
    one.add_argument(
        "--unlabelled",
        action="store_true",
        help="pack all images below SRC without labels, for training; needs --classes",
    )
    one.add_argument(
        "--layout",
        choices=folder_layout.LAYOUTS,
        help="meaning of the sub-folders of SRC (default: by their names)",
    )

    one = add("list", "a list of images and labels", list_file.__doc__)
    one.add_argument("source", metavar="FILE", help="the list")
    one.add_argument(
        "--root", metavar="DIR", help="base folder of the paths in FILE (default: the folder of FILE)"
    )
    _add_file_options(one)

    one = add("index", "an index and a manifest of existing WebDataset tars")
    one.add_argument("urls", metavar="URL", nargs="+", help="tars, folders of tars, brace ranges or globs")
    one.add_argument("--split", choices=("train", "val", "test"), help="split of all these tars, whose "
                     "list in the manifest is replaced (default: by split words in names and folders)")  # fmt: skip
    one.add_argument(
        "--to", metavar="DEST", help="folder for indices and manifest (default: beside the tars)"
    )
    one.add_argument(
        "--label",
        default="cls",
        help="the label: a field such as cls (a number), txt (a name), json:KEY/KEY; or path, the folder of the image "
        "in the tar (path:0: the first folder)",
    )
    one.add_argument(
        "--image", metavar="FIELD", help="field of the image (default: jpg, png, ... in a fixed order)"
    )
    one.add_argument("--name", help="name of the dataset (default: the name of the folder)")
    one.add_argument("--classes", metavar="FILE|URL", help=_CLASSES)
    one.add_argument(
        "--unlabelled", action="store_true", help="pack samples without the label field as unlabelled"
    )
    one.add_argument("--skip-bad", action="store_true", help="leave out faulty samples, and count them")
    one.add_argument(
        "--decode", action="store_true", help="decode every image; images that cannot be decoded are faulty"
    )
    add_grey_range(one, _GREY_RANGE)
    add_max_megapixels(one, _MEGAPIXELS)
    one.add_argument("--no-checksum", action="store_true", help="skip the SHA-256 of each tar")

    one = add(
        "reshard",
        "a dataset folder again: other shards, smaller images",
        "Pack a dataset folder again, with other shards or smaller images (--max-side). Splits, labels and classes "
        "stay; of each sample, only image and label are read.",
    )
    one.add_argument("source", metavar="SRC", help="path or URL of the dataset folder to read")
    one.add_argument("destination", metavar="DEST", help="path or URL of the dataset folder to write")
    one.add_argument("--name", help="name of the dataset (default: that of SRC)")
    _add_pack_options(one)

    one = add("verify", "check a dataset: sizes, checksums, indices, counts")
    one.add_argument("url", metavar="URL", help="dataset folder")
    one.add_argument("--decode", action="store_true", help="also decode every image, as training does")
    add_max_megapixels(one, _MEGAPIXELS)

    one = add("sheet", "a picture of several datasets side by side, a row per class")
    one.add_argument("urls", metavar="URL", nargs="+", help="dataset folders")
    one.add_argument("out", metavar="OUT.png", help="the picture")
    one.add_argument("--images", type=whole(1, 64), default=6, help="images per class (default 6)")
    one.add_argument(
        "--classes", type=whole(1, 256), default=16, help="number of classes to show (default 16)"
    )
    one.add_argument("--seed", type=whole(0), default=0, help="seed of the choice of images (default 0)")

    for name, source in DATASET_BUILDERS.items():
        one = add(name, source.help)
        for argument in source.arguments:
            if argument.positional:
                one.add_argument(
                    argument.name, metavar=argument.name.upper(), type=argument.type, help=argument.help
                )
        one.add_argument(
            "destination", metavar="DEST", help="path or URL of the folder that gets a folder per domain"
        )
        for argument in source.arguments:
            if not argument.positional:
                one.add_argument(f"--{argument.name.replace('_', '-')}", **_keywords(argument))
        _add_pack_options(one)
    return parser


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("destination", metavar="DEST", help="path or URL of the dataset folder to write")
    parser.add_argument("--name", help="name of the dataset (default: the last part of DEST)")
    parser.add_argument("--classes", metavar="FILE|URL", help=f"{_CLASSES}; for domains that must have the same "
                        "classes (default: all classes found, sorted)")  # fmt: skip
    parser.add_argument(
        "--group",
        metavar="REGEX",
        help="pattern of an image's group in its path below SRC or in the list, e.g. 'patient_(\\d+)': all images of a "
        "group get the same split",
    )
    parser.add_argument(
        "--val-fraction",
        type=real(0, 1),
        default=0.1,
        help="fraction of each class, if no split is given (0.1)",
    )
    parser.add_argument(
        "--test-fraction",
        type=real(0, 1),
        default=0.2,
        help="fraction of each class, if no split is given (0.2)",
    )
    parser.add_argument(
        "--seed", type=whole(0), default=42, help="seed of the splits and of the order in shards (42)"
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out images and folders that cannot be read, and count them",
    )
    parser.add_argument(
        "--decode", action="store_true", help="decode every image to find damage after the header"
    )
    _add_pack_options(parser)


def _add_pack_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-side",
        type=whole(1, 1 << 16),
        metavar="PX",
        help="scale larger images down to this longest side, once and for all runs (default: copy all images)",
    )
    parser.add_argument(
        "--quality", type=whole(1, 100), help="quality of scaled JPEG and WebP images (default 90)"
    )
    parser.add_argument(
        "--shard-mb", type=real(1e-6, 1e9), default=128, help="target size of a shard, in MB (128)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace another dataset in DEST")
    add_grey_range(parser, _GREY_RANGE)
    add_max_megapixels(parser, _MEGAPIXELS)


def _keywords(argument: BuilderArgument) -> dict[str, Any]:
    if argument.default is False:
        return {"action": "store_true", "help": argument.help}
    shown = "" if argument.default is None else f" (default {argument.default})"
    keywords: dict[str, Any] = {
        "type": _checked(argument),
        "default": argument.default,
        "help": argument.help + shown,
    }
    if argument.choices:
        keywords["choices"] = argument.choices
    if argument.many:
        keywords["nargs"] = "+"
    return keywords


def _checked(argument: BuilderArgument) -> Callable[[str], Any]:
    """Return the type of an argument with its limits."""
    if argument.type is int and argument.least is not None:
        return whole(int(argument.least), None if argument.most is None else int(argument.most))
    if argument.type is float and argument.least is not None and argument.most is not None:
        return real(argument.least, argument.most)
    return argument.type
