"""PyTorch files, read without running pickled code.

`torch.load(weights_only=True)` builds tensors and plain values. Files of other trainers also hold settings: an
argparse.Namespace, NumPy scalars, paths, dictionaries of omegaconf or Lightning. An allow-list names the classes that
are read: NumPy arrays as arrays, every other object as a dictionary whose items or attributes are the object's values,
without code. Other classes are refused; the message has a Python command that writes the file's tensors as safetensors.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import shlex
import warnings
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np
import torch

READ_AS_VALUES = (
    "argparse.", "types.SimpleNamespace", "pathlib.", "datetime.", "decimal.", "fractions.", "uuid.", "enum.",
    "typing.", "collections.", "numpy.random.", "numpy.ma.", "omegaconf.", "yacs.", "easydict.", "addict.", "munch.",
    "box.", "ml_collections.", "fvcore.", "mmcv.", "mmengine.", "lightning.", "pytorch_lightning.",
    "lightning_fabric.", "lightning_utilities.", "torchmetrics.", "timm.", "torch.optim.", "torch.torch_version.",
    "torch.cuda.amp.",
)  # fmt: skip
"""Prefixes of class names that are read as dictionaries of values."""

PLAIN_BUILTINS = ("int", "float", "str", "bool", "list", "dict", "tuple", "frozenset", "slice", "range", "object",
                  "type")  # fmt: skip
"""Built-in types without code; also read as dictionaries of values."""

MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""First value of files that torch.save wrote before the zip format."""

MAGIC_TEXT = str(int.from_bytes(MAGIC, "little")).encode()
"""MAGIC in the pickle protocols 0 and 1."""

DEQUE = "collections.deque"
TENSOR_MODULES = (
    "torch._utils",
    "torch._tensor",
    "torch.storage",
    "torch.serialization",
    "torch.nn.parameter",
)


class _Values:
    """Replacement of a listed class: an instance becomes a dictionary, without running code of the class."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        del args, options
        return OrderedDict()


class _Items:
    """Replacement of a listed class that is a list."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        del args, options
        return []


def torch_load(data: bytes, where: str, path: str) -> Any:
    """Return the content of a file of `torch.save`, on the CPU.

    Args:
        where: first words of error messages.
        path: path of the file, for the command in error messages.

    Raises:
        ValueError: the file is truncated, is not a PyTorch file, or holds objects of other classes.
    """
    if data[:1] == b"\x80" and MAGIC not in data[:32]:
        raise ValueError(_plain_pickle(where, path))
    names = global_names(data)
    values: list[Any] = [(_Values, name) for name in names - {DEQUE} if name.startswith(READ_AS_VALUES)]
    values += [(_Values, f"builtins.{name}") for name in PLAIN_BUILTINS]
    listed = [*values, (_Items, DEQUE), *_numpy_globals()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(listed):
            # PyTorch warns about unusual pickles; its errors are handled below.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch's unpickler raises errors of many classes on corrupt files
        raise ValueError(_refusal(error, data, names, where, path)) from None


def _refusal(error: Exception, data: bytes, names: set[str], where: str, path: str) -> str:
    """Return the message for a file that PyTorch refused with `error`.

    Args:
        names: names of classes and functions in the file.
    """
    if data and not _is_of_torch(data):
        if _is_pickle(data):
            return _plain_pickle(where, path)
        return (
            f"{where} is not a PyTorch file: it begins with {data[:16]!r}; give a file that torch.save wrote, or a "
            ".safetensors file"
        )
    if not isinstance(error, pickle.UnpicklingError):
        return f"{where} is truncated or not a PyTorch file ({_first_line(error)})"
    unknown = sorted(name for name in names if not _is_listed(name))
    if unknown or "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
        # No unknown names: PyTorch refuses this form of pickle.
        what = f" ({', '.join(unknown[:3])})" if unknown else ""
        return (
            f"{where} holds pickled code, which is never run{what}; save its state dict, best as .safetensors. If "
            f"you trust the file, this command writes its tensors to weights.safetensors: {conversion(path)}"
        )
    return f"{where} is not a PyTorch file ({_first_line(error)})"


def _plain_pickle(where: str, path: str) -> str:
    return (
        f"{where} is a pickle that torch.save did not write, and pickled code is never run; save its tensors, best as "
        ".safetensors. If you trust the file, this command writes its tensors to weights.safetensors: "
        f"{conversion(path, is_plain_pickle=True)}"
    )


def _is_of_torch(data: bytes) -> bool:
    """Return whether a file begins as files of torch.save do: a zip archive, MAGIC as a pickle, or (in 2016) a tar."""
    is_old = MAGIC in data[:32] or MAGIC_TEXT in data[:64] or data[257:262] == b"ustar"
    return is_old or data.startswith(b"PK\x03\x04")


def _is_pickle(data: bytes) -> bool:
    """Return whether a file is a pickle of any protocol; 0 and 1 have no mark at their beginning."""
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(data))
    except Exception:  # pickletools raises errors of many classes
        return False


def conversion(path: str, *, is_plain_pickle: bool = False) -> str:
    """Return a shell command that writes all tensors of a PyTorch file as safetensors; the command runs pickled code.

    Args:
        is_plain_pickle: the file was written by pickle, not by torch.save; arrays count as tensors.
    """
    load = f"torch.load({path!r}, map_location='cpu', weights_only=False)"
    is_tensor, pickle_too = "torch.is_tensor(v)", ""
    if is_plain_pickle:
        load, pickle_too = f"pickle.loads(pathlib.Path({path!r}).read_bytes())", "pathlib, pickle, "
        is_tensor = "torch.is_tensor(v) or hasattr(v, '__array__')"
    code = (
        f"import {pickle_too}torch; from safetensors.torch import save_file; "
        "f = lambda x, p: {n: t for k, v in (x.state_dict() if hasattr(x, 'state_dict') else x).items() for n, t in "
        "({p + str(k): torch.as_tensor(v).contiguous().clone()} if "
        + is_tensor
        + " else f(v, p + str(k) + '.') "
        "if hasattr(v, 'items') or hasattr(v, 'state_dict') else {}).items()}; "
        f"save_file(f({load}, ''), 'weights.safetensors')"
    )
    is_plain = not set(code) & set('"$`\\!')
    return f'python -c "{code}"' if is_plain else f"python -c {shlex.quote(code)}"


def global_names(data: bytes) -> set[str]:
    """Return the names of classes and functions in the pickles of a PyTorch file, without imports."""
    stream = io.BytesIO(data)
    try:
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive:
                members = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
                stream = io.BytesIO(b"".join(archive.read(name) for name in members))
        else:
            stream.seek(0)
    except Exception:  # zipfile and decompressors raise errors of many classes on corrupt files
        return set()
    found: set[str] = set()
    try:
        while True:  # files before the zip format start with several pickles
            strings: list[str | None] = []  # the last two values on the stack; None: not a string
            memo: dict[int, str | None] = {}
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    found.add(str(argument).replace(" ", ".", 1))
                elif opcode.name == "STACK_GLOBAL":
                    found.add(".".join(filter(None, strings)))
                    strings = []
                elif opcode.name == "MEMOIZE":
                    memo[len(memo)] = strings[-1] if strings else None
                elif opcode.name in ("BINGET", "LONG_BINGET"):
                    strings = [*strings[-1:], memo.get(int(argument or 0))]
                elif opcode.name not in ("FRAME", "PROTO"):
                    strings = [*strings[-1:], argument if isinstance(argument, str) else None]
    except Exception:  # end of the pickles: raw tensors follow, or nothing
        return {name.replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.") for name in found}


def _is_listed(name: str) -> bool:
    """Return whether a name is read, by PyTorch as a part of a tensor or by the allow-list."""
    module, _, last = name.rpartition(".")
    if module == "builtins":
        return last in (*PLAIN_BUILTINS, "set", "bytearray", "complex")
    if module in ("torch", *TENSOR_MODULES) or name == "_codecs.encode":
        return True
    return name.startswith((*READ_AS_VALUES, "numpy."))


def _numpy_globals() -> list[Any]:
    core = np._core.multiarray  # pyright: ignore[reportAttributeAccessIssue]
    functions = [
        (getattr(core, function), f"numpy.{package}.multiarray.{function}")
        for function in ("scalar", "_reconstruct")
        for package in ("core", "_core")
    ]
    kinds = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    return [*functions, (np.ndarray, "numpy.ndarray"), (np.dtype, "numpy.dtype"), *kinds]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
