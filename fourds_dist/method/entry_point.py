"""Entry points: functions of the user's own modules that the configuration names as `package.module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def entry_point(name: str, *, what: str, takes: str) -> Callable[..., Any]:
    """The function of that name.

    Args:
        name: `package.module:function`.
        what: begins the error messages, e.g. "architecture".
        takes: the arguments that the function is called with, for the error message.

    Raises:
        ValueError: another form, no such module, no such function in it, or nothing that can be called.
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
