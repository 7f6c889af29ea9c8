"""Run-time compilation of CUDA C++ by NVRTC, the compiler library in PyTorch's CUDA builds.

This needs no CUDA toolkit, host compiler or header. Machine code is cached in the user's cache folder for later
processes. A kernel is launched on PyTorch's current stream, in order with other work there, and can be captured in a
CUDA graph after a first run outside a graph.
"""

import ctypes
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

OPTIONS = ("--std=c++17", "--ftz=true", "--prec-div=false", "--prec-sqrt=false", "-default-device")
MAX_DYNAMIC_SHARED_SIZE_BYTES, PREFERRED_SHARED_MEMORY_CARVEOUT = 8, 9  # CUfunction_attribute


@dataclass(frozen=True)
class Block:
    """Resources of a kernel's block: threads, and dynamic shared memory in bytes."""

    num_threads: int
    shared_bytes: int = 0
    shared_percent: int = 100
    """Preferred percentage of shared memory in the on-chip memory; the rest is cache."""


class Kernel:
    """One compiled function, loaded on one device."""

    def __init__(self, function: ctypes.c_void_p, context: ctypes.c_void_p, block: Block) -> None:
        self.function = function
        self.context = context
        self.block = block
        check(driver().cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED_SIZE_BYTES, block.shared_bytes))
        check(driver().cuFuncSetAttribute(function, PREFERRED_SHARED_MEMORY_CARVEOUT, block.shared_percent))

    def __call__(self, num_blocks: int, *arguments: Tensor | int) -> None:
        """Launch on the current stream of the current device; tensors are passed as pointers, integers as int."""
        values = [
            ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else ctypes.c_int(x) for x in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        make_current(self.context)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        grid, block = (num_blocks, 1, 1), (self.block.num_threads, 1, 1)
        check(
            driver().cuLaunchKernel(
                self.function, *grid, *block, self.block.shared_bytes, stream, pointers, None
            )
        )


def load(source: str, blocks: dict[str, Block]) -> dict[str, Kernel]:
    """Compile `source` for the current device and return its `extern "C"` kernels by name.

    Args:
        source: CUDA C++ without includes.
        blocks: names of the kernels to return, with the resources of their blocks.

    Raises:
        RuntimeError: NVRTC or the driver is missing, or the compilation failed; the message has the compiler's log.
    """
    torch.cuda.init()
    major, minor = torch.cuda.get_device_capability()
    image = machine_code(source, f"sm_{major}{minor}")
    context, module = primary_context(torch.cuda.current_device()), ctypes.c_void_p()
    make_current(context)
    check(driver().cuModuleLoadData(ctypes.byref(module), image))
    kernels = {}
    for name, block in blocks.items():
        function = ctypes.c_void_p()
        check(driver().cuModuleGetFunction(ctypes.byref(function), module, name.encode()))
        kernels[name] = Kernel(function, context, block)
    return kernels


def primary_context(device_index: int) -> ctypes.c_void_p:
    """Return PyTorch's context on a device, retained until the process ends."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    check(driver().cuDeviceGet(ctypes.byref(device), device_index))
    check(driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    return context


def make_current(context: ctypes.c_void_p) -> None:
    """Make `context` the current one of this thread, as threads of autograd may not have a context yet."""
    current = ctypes.c_void_p()
    check(driver().cuCtxGetCurrent(ctypes.byref(current)))
    if current.value != context.value:
        check(driver().cuCtxSetCurrent(context))


def machine_code(source: str, architecture: str) -> bytes:
    """Return the result of `compile_source`, from the cache folder if possible; an unusable cache folder is ignored."""
    what = "\n".join((source, architecture, *OPTIONS, str(torch.version.cuda)))
    file = cache_folder() / f"{hashlib.sha256(what.encode()).hexdigest()}.cubin"
    with suppress(OSError):
        return file.read_bytes()
    image = compile_source(source, architecture)
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_bytes(image)
        part.replace(file)  # atomic, as other processes may write the same file
    return image


def cache_folder() -> Path:
    """Return the cache folder of machine code: `fourds_dist` in XDG_CACHE_HOME or ~/.cache; no cache without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fourds_dist"
    except RuntimeError:
        return Path(os.devnull)


def compile_source(source: str, architecture: str) -> bytes:
    """Return the machine code of `source` for `architecture` (such as sm_90); needs no device."""
    library = compiler()
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"fourds.cu", 0, None, None)
    try:
        options = [option.encode() for option in (f"--gpu-architecture={architecture}", *OPTIONS)]
        status = library.nvrtcCompileProgram(
            program, len(options), (ctypes.c_char_p * len(options))(*options)
        )
        if status != 0:
            raise RuntimeError(f"NVRTC could not compile for {architecture}: {log_of(program)}")
        size = ctypes.c_size_t()
        library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        library.nvrtcGetCUBIN(program, image)
        return image.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def log_of(program: ctypes.c_void_p) -> str:
    """Return the messages of the compiler."""
    size = ctypes.c_size_t()
    compiler().nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    compiler().nvrtcGetProgramLog(program, log)
    return log.value.decode(errors="replace").strip()


@lru_cache(maxsize=1)
def compiler() -> ctypes.CDLL:
    """Return the NVRTC library of PyTorch's CUDA version."""
    if torch.version.cuda is None:
        raise RuntimeError("this PyTorch was built without CUDA")
    major = torch.version.cuda.split(".")[0]
    return first_library(f"libnvrtc.so.{major}", "libnvrtc.so", f"nvrtc64_{major}0_0.dll")


@lru_cache(maxsize=1)
def driver() -> ctypes.CDLL:
    """Return the library of the CUDA driver."""
    return first_library("libcuda.so.1", "nvcuda.dll")


def first_library(*names: str) -> ctypes.CDLL:
    """Return the first of these shared libraries that can be loaded."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError(f"none of these libraries could be loaded: {', '.join(names)}")


def check(status: int) -> None:
    """Raise RuntimeError with the driver's name for `status`, unless `status` is success."""
    if status != 0:
        name = ctypes.c_char_p()
        driver().cuGetErrorName(status, ctypes.byref(name))
        raise RuntimeError(f"CUDA driver: {(name.value or b'unknown error').decode()} ({status})")
