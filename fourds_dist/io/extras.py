"""Commands that install missing packages, for a clone or for an installed wheel.

`pip install 'fourds_dist[s3]'` works only for an installed wheel, since a clone is not on an index. An environment that
uv made has no pip; there `pip` would be the pip of another Python.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from fourds_dist.io.error_text import error_line

_FOLDER = Path(__file__).resolve().parents[2]


def fix(extra: str) -> str:
    """Return the command that installs an extra of fourds_dist (s3, gcs, export, ...)."""
    clone = clone_folder()
    if clone is None:
        return f"{_pip()} 'fourds_dist[{extra}]'"
    here = Path.cwd() == clone
    if _made_by_uv() and Path(sys.prefix).resolve() == clone / ".venv":
        # Without --inexact, uv removes the packages of other extras.
        return f"uv sync --inexact --extra {extra}" + ("" if here else f" --project {clone}")
    return f"{_pip()} -e '{'.' if here else clone}[{extra}]'"


def install(*requirements: str, upgrade: bool = False) -> str:
    """Return the command that installs other packages."""
    return " ".join((_pip(), *(["--upgrade"] if upgrade else []), *(_quoted(r) for r in requirements)))


@contextmanager
def importing(package: str, otherwise: str = "") -> Iterator[None]:
    """Give a failure of the imports within the context a message of one line with the remedy.

    Args:
        package: a required package of fourds_dist, which may be missing or broken.
        otherwise: remedy without the package, for the end of the message.

    Raises:
        RuntimeError: an import failed; a broken package raises errors of any class.
    """
    try:
        yield
    except Exception as error:
        needed = f"{package} cannot be imported ({error_line(error)}); {install(_requirement(package))}"
        raise RuntimeError(f"{needed}, or {otherwise}" if otherwise else needed) from error


def _requirement(package: str) -> str:
    """Return the requirement of fourds_dist on a package, with its versions."""
    try:
        required = metadata.requires("fourds_dist") or []
    except metadata.PackageNotFoundError:  # a copy of the sources that is not installed
        required = []
    found = (text.partition(";")[0].strip() for text in required if "extra ==" not in text)
    return next((text for text in found if re.match(rf"{package}(?![\w.-])", text)), package)


def install_this_clone() -> str:
    """Return the command that installs the clone that holds this module."""
    return f"{_pip()} -e {'.' if Path.cwd() == _FOLDER else _FOLDER}"


def clone_folder() -> Path | None:
    """Return the folder of the clone that holds this module; None: an installed wheel."""
    return _FOLDER if (_FOLDER / "pyproject.toml").is_file() else None


def _pip() -> str:
    return "pip install" if importlib.util.find_spec("pip") is not None else "uv pip install"


def _made_by_uv() -> bool:
    try:
        lines = Path(sys.prefix, "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(line.partition("=")[0].strip() == "uv" for line in lines)


def _quoted(requirement: str) -> str:
    return f"'{requirement}'" if any(letter in requirement for letter in "<>[]=!~; ") else requirement
