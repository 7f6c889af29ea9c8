"""Checks shapes and types of all calls in the tests, in the modules that annotate shapes."""

import sys
from pathlib import Path

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""The checker; to it an int is a float, as in PEP 484."""

PACKAGE = Path(__file__).parents[1] / "fourds_dist"
UNCHECKED = ("fourds_dist.ops.", "fourds_dist.models.memory_saving")
"""The operators check their own arguments; a check would break the graph that `torch.compile` makes of the others."""


def check_calls() -> None:
    """Check all calls of functions that are imported from now on, and of no module that is there already."""
    modules = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        if "from jaxtyping import" in file.read_text("utf-8") and not name.startswith(UNCHECKED):
            assert name not in sys.modules, f"{name} was imported before its calls could be checked"
            modules.append(name)
    install_import_hook(modules, f"{__name__}.checked")
