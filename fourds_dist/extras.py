"""The command that installs a missing part where the user stands: in a clone, or with the package from a wheel.

A clone is no distribution that an index knows, so `pip install 'fourds_dist[s3]'` helps only with an installed wheel.
An environment that uv made has no pip of its own, and there `pip` would be that of another Python.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1]


def remedy(extra: str) -> str:
    """The command that brings the packages of one of our extras (s3, gcs, export, ...)."""
    clone = clone_folder()
    if clone is None:
        return f"{_pip()} 'fourds_dist[{extra}]'"
    here = Path.cwd() == clone
    if _made_by_uv() and Path(sys.prefix).resolve() == clone / ".venv":
        # Without --inexact, uv removes the packages of other extras.
        return f"uv sync --inexact --extra {extra}" + ("" if here else f" --project {clone}")
    return f"{_pip()} -e '{'.' if here else clone}[{extra}]'"


def install(*requirements: str, upgrade: bool = False) -> str:
    """The command that brings other packages."""
    return " ".join((_pip(), *(["--upgrade"] if upgrade else []), *(_quoted(r) for r in requirements)))


def install_ourselves() -> str:
    """The command that installs the clone that this runs from."""
    return f"{_pip()} -e {'.' if Path.cwd() == _FOLDER else _FOLDER}"


def clone_folder() -> Path | None:
    """The clone that this runs from; None: an installed wheel."""
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
