"""The kernels of `ops.memory_saving` on a CPU: compiled as C++, in the place of those that a GPU would run."""

import ctypes
import subprocess
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

from torch import Tensor

from fourds_dist.ops import memory_saving

HEADER = Path(__file__).parent / "emulation.hpp"
PARAMETERS = {
    "max_pool": "(stored*)x[0], (stored*)x[1], (unsigned char*)x[2], n",
    "max_pool_backward": "(stored*)x[0], (unsigned char*)x[1], (stored*)x[2], n",
    "relu": "(stored*)x[0], (unsigned char*)x[1], n",
    "relu_backward": "(stored*)x[0], (unsigned char*)x[1], (stored*)x[2], n",
}


@lru_cache(maxsize=64)
def compiled(source: str, names: tuple[str, ...]) -> ctypes.CDLL:
    """A source's kernels as functions of pointers and a count; a block is one thread."""
    calls = "\n".join(
        f'extern "C" void run_{name}(void** x, int n) {{ launch({name}, n, 1, {PARAMETERS[name]}); }}'
        for name in names
    )
    single = source.replace(f"THREADS = {memory_saving.NUM_THREADS};", "THREADS = 1;")
    assert single != source
    path = Path(mkdtemp()) / "kernels.cpp"
    path.write_text(f'#include "{HEADER}"\n{single}\n{calls}\n')
    library = path.with_suffix(".so")
    options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-w", "-pthread", "-o", str(library)]
    subprocess.run(["g++", *options, str(path)], check=True)
    return ctypes.CDLL(str(library))


def launch(source: str, names: tuple[str, ...], name: str, count: int, *tensors: Tensor) -> None:
    """In the place of `memory_saving.launch`."""
    pointers = (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))
    getattr(compiled(source, names), f"run_{name}")(pointers, count)


def use(monkeypatch) -> list[str]:
    """Let `ops.memory_saving` believe that the CPU is a GPU; returns the names of the kernels it launches, as it
    does."""
    launched = []

    def noted(source: str, names: tuple[str, ...], name: str, count: int, *tensors: Tensor) -> None:
        launched.append(name)
        launch(source, names, name, count, *tensors)

    monkeypatch.setattr(memory_saving, "launch", noted)
    monkeypatch.setattr(memory_saving, "on_nvidia", lambda x: True)
    monkeypatch.setattr(memory_saving, "build_error", lambda *_: None)
    return launched
