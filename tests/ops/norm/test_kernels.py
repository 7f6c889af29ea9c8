"""The Triton kernels without a GPU: in Triton's interpreter, and compiled for an NVIDIA device."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fourds_dist.ops.norm import fused

INTERPRETED = Path(__file__).with_name("interpreted.py")
POINTERS = {"bits": "*u8", "num_batches": "*i64"}
MAPS = ("g", "x", "residual", "y", "h_out", "grad_x")
NUMBERS = {"momentum": "fp32", "eps": "fp32", "num_rows": "i32", "num_programs": "i32"}

pytestmark = pytest.mark.skipif(not fused.has_triton(), reason="needs Triton")


@pytest.mark.parametrize("words", [[], pytest.param(["--slow"], marks=pytest.mark.slow)], ids=["fast", "all"])
def test_kernels_in_the_interpreter(words: list[str]) -> None:
    """Triton decides at its import whether it interprets, so this needs a process of its own."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        str(INTERPRETED),
        *words,
    ]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("kernel", "constants"),
    [
        ("statistics", {"ROWS": 32, "COLS": 64}),
        ("merge_statistics", {"ROWS": 32, "PROGRAMS": 1024, "COLS": 8, "CUMULATIVE": False}),
        ("merge_statistics", {"ROWS": 32, "PROGRAMS": 1, "COLS": 8, "CUMULATIVE": True, "num_programs": 1}),
        ("normalise", {"ROWS": 64, "COLS": 64, "ACTIVATION": "relu"}),
        ("sum_gradients", {"ROWS": 32, "COLS": 64, "ACTIVATION": "relu", "residual": None}),
        ("merge_gradients", {"PROGRAMS": 1024, "COLS": 8}),
        ("input_gradient", {"ROWS": 32, "COLS": 64, "ACTIVATION": "none", "OF_BATCH": True, "bits": None}),
        ("input_gradient", {"ROWS": 32, "COLS": 64, "ACTIVATION": "silu", "OF_BATCH": True, "num_rows": 1}),
    ],
)
def test_triton_compiles_the_kernels_for_an_h100(
    kernel: str, constants: dict, tmp_path: Path, monkeypatch
) -> None:
    """Maps in bfloat16 are read and written 16 bytes at a time. Triton makes constants of numbers that are 1."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(fused.kernels(), kernel)
    constants = {"C": 64} | constants
    signature, aligned = {}, {}
    for place, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        signature[name] = NUMBERS.get(name) or POINTERS.get(name) or ("*bf16" if name in MAPS else "*fp32")
        if signature[name].startswith("*"):
            aligned[(place,)] = [["tt.divisibility", 16]]
    fixed = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=function, signature=signature, constexprs=fixed, attrs=aligned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Triton, about its own defaults
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    code = compiled.asm["ptx"]
    assert "ld.global.v4" in code or constants.get("PROGRAMS") == 1
    assert ("st.global.v4" in code) == any(name in signature for name in ("y", "h_out", "grad_x"))
    assert "atom.global" not in code
