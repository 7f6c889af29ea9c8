"""torchvision without PyTorch's compiler; tests/test_light.py checks what a fresh process imports."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from fourds_dist.io import light_torchvision
from fourds_dist.io.light_torchvision import _COMPILER, _without_compiler


def test_the_compiler_is_replaced_only_within_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = ModuleType(_COMPILER)
    compiler.is_compile_supported = lambda device_type: f"asked for {device_type}"  # pyright: ignore
    monkeypatch.delitem(sys.modules, _COMPILER, raising=False)
    with _without_compiler():
        from torch._dynamo.utils import is_compile_supported
    assert _COMPILER not in sys.modules
    monkeypatch.setitem(sys.modules, _COMPILER, compiler)
    assert is_compile_supported("cuda") == "asked for cuda"


def test_an_imported_compiler_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = ModuleType(_COMPILER)
    monkeypatch.setitem(sys.modules, _COMPILER, compiler)
    with _without_compiler():
        assert sys.modules[_COMPILER] is compiler
    assert sys.modules[_COMPILER] is compiler


def test_torchvision_is_whole() -> None:
    torchvision = light_torchvision.torchvision
    assert "resnet18" in torchvision.models.list_models(module=torchvision.models)
    assert torchvision.ops.RoIAlign(1, 1.0, 1) is not None
