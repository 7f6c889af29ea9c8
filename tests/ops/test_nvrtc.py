"""Machine code is cached for the next process, by source and architecture; the cache is optional."""

import os
from pathlib import Path

import pytest

from fourds_dist.ops import nvrtc


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was compiled, by a compiler that gives its input back."""
    done: list[tuple[str, str]] = []

    def compile_source(source: str, architecture: str) -> bytes:
        done.append((source, architecture))
        return f"{source} for {architecture}".encode()

    monkeypatch.setattr(nvrtc, "compile_source", compile_source)
    return done


def test_machine_code_is_compiled_once(
    compiled: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        assert nvrtc.machine_code("a", "sm_90") == b"a for sm_90"
        assert nvrtc.machine_code("b", "sm_90") == b"b for sm_90"
        assert nvrtc.machine_code("a", "sm_80") == b"a for sm_80"
    assert compiled == [("a", "sm_90"), ("b", "sm_90"), ("a", "sm_80")]
    assert [file.suffix for file in (tmp_path / "fourds_dist").iterdir()] == [".cubin"] * 3


@pytest.mark.parametrize("has_home", [True, False])
def test_without_a_writable_cache_kernels_are_compiled_every_time(
    compiled: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_home: bool
) -> None:
    (tmp_path / ".cache").touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(
        os.path, "expanduser", lambda path: path.replace("~", str(tmp_path)) if has_home else path
    )
    for _ in range(2):
        assert nvrtc.machine_code("a", "sm_90") == b"a for sm_90"
    assert len(compiled) == 2
