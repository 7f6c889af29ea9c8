"""Entry points: functions of user modules, named `package.module:function` in the configuration."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def entry_point(name: str, *, what: str, takes: str) -> Callable[..., Any]:
    """Import and return the function of an entry point.

    Args:
        name: `package.module:function`.
        what: first words of error messages, e.g. "architecture".
        takes: arguments of the function, for the error message.

    Raises:
        ValueError: malformed name, no such module or function, or not callable.
    """
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise ValueError(f"{what} {name!r}: the name has the form package.module:function")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise ValueError(
            f"{what} {name!r}: {module_name!r} cannot be imported ({error}); install it, or put its folder on "
            "PYTHONPATH on every machine"
        ) from None
    except AttributeError:
        raise ValueError(f"{what} {name!r}: {module_name} has no {function_name!r}") from None
    if not callable(function):
        raise ValueError(f"{what} {name!r}: a function that takes {takes} is needed")  # noqa: TRY004
    return function
