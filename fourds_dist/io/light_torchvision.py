"""torchvision, imported without PyTorch's compiler, whose import takes longer than the rest of torchvision and PyTorch.

torchvision needs one function of the compiler, `is_compile_supported`, which only detectors call (RoIAlign). While
torchvision is imported, a module with this function alone stands for `torch._dynamo.utils`; the function imports the
compiler when it is called. A version of torchvision that needs more of the compiler is imported as usual.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_COMPILER = "torch._dynamo.utils"


def _is_compile_supported(device_type: str) -> bool:
    return importlib.import_module(_COMPILER).is_compile_supported(device_type)


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Replace the compiler's module within the context, unless it is imported already."""
    if _COMPILER in sys.modules:
        yield
        return
    substitute = ModuleType(_COMPILER)
    substitute.is_compile_supported = _is_compile_supported  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules[_COMPILER] = substitute
    try:
        yield
    finally:
        if sys.modules.get(_COMPILER) is substitute:
            del sys.modules[_COMPILER]


try:
    with _without_compiler():
        import torchvision as torchvision
except (ImportError, AttributeError):
    import torchvision as torchvision
