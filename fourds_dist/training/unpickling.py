"""PyTorch files, read without running the code that a pickle may hold.

`torch.load(weights_only=True)` builds tensors and plain values. Files of other trainers hold settings beside them: an
argparse.Namespace, numpy scalars, paths, omegaconf's or Lightning's dictionaries. These are read by an allow-list:
numpy's arrays as themselves, every other object as a dictionary that has the object's values and no code. Whatever is
not on the list is refused, with the line of Python that writes the file's tensors as safetensors.
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
"""Beginnings of the names of classes that are read as their values alone."""

PLAIN_BUILTINS = ("int", "float", "str", "bool", "list", "dict", "tuple", "frozenset", "slice", "range", "object",
                  "type")  # fmt: skip
"""Built-in types that hold no code; read as values alone, too."""

MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""What files of torch.save from before the archive begin with, within a pickle."""

DEQUE = "collections.deque"
TENSOR_MODULES = (
    "torch._utils",
    "torch._tensor",
    "torch.storage",
    "torch.serialization",
    "torch.nn.parameter",
)


class _Values:
    """Takes the place of a class on the list: what is made of it is a dictionary, and no code of the class runs."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        del args, options
        return OrderedDict()


class _Items:
    """The same for classes that are lists."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        del args, options
        return []


def torch_load(data: bytes, where: str, path: str) -> Any:
    """What a `torch.save`d file holds, on the CPU.

    Args:
        where: begins an error's message.
        path: of the file, for the command that a refusal names.

    Raises:
        ValueError: truncated, no PyTorch file, or holding objects that are not on the list.
    """
    if data[:1] == b"\x80" and MAGIC not in data[:32]:
        raise ValueError(
            f"{where} is a pickle that torch.save did not write, and pickled code is never run; save its tensors, best "
            f"as .safetensors. Only for a file that can be trusted, this makes a weights.safetensors of it: "
            f"{conversion(path, is_plain_pickle=True)}"
        )
    names = global_names(data)
    values: list[Any] = [(_Values, name) for name in names - {DEQUE} if name.startswith(READ_AS_VALUES)]
    values += [(_Values, f"builtins.{name}") for name in PLAIN_BUILTINS]
    listed = [*values, (_Items, DEQUE), *_numpy_globals()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(listed):
            # PyTorch's warnings about odd pickles; what it refuses is told below.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unknown = sorted(name for name in names if not _is_listed(name))
        if unknown or "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            what = (
                f" ({', '.join(unknown[:3])})" if unknown else ""
            )  # none: a form of pickle that PyTorch refuses
            raise ValueError(
                f"{where} holds pickled code, which is never run{what}; save its state dict, best as .safetensors. "
                f"Only for a file that can be trusted, this makes a weights.safetensors of it: {conversion(path)}"
            ) from None
        raise ValueError(f"{where} is no PyTorch file ({_first_line(error)})") from None
    except Exception as error:  # what PyTorch's unpickler raises on garbage is not of one family
        raise ValueError(f"{where} is truncated or no PyTorch file ({_first_line(error)})") from None


def conversion(path: str, *, is_plain_pickle: bool = False) -> str:
    """The command that writes all tensors of a PyTorch file of any kind as safetensors; it runs the file's code.

    Args:
        is_plain_pickle: the file was written by pickle itself; its arrays count as tensors.
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
    """Names of the classes and functions that a PyTorch file's pickles ask for; nothing is imported."""
    stream = io.BytesIO(data)
    try:
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive:
                members = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
                stream = io.BytesIO(b"".join(archive.read(name) for name in members))
        else:
            stream.seek(0)
    except Exception:  # what zipfile and the decompressors raise on garbage is not of one family
        return set()
    found: set[str] = set()
    strings: list[str | None] = []  # the last two values that were pushed, where they are strings
    memo: dict[int, str | None] = {}
    try:
        while True:  # files from before the archive begin with several pickles
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
    except Exception:  # the end of the pickles: raw tensors follow, or nothing
        return {name.replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.") for name in found}


def _is_listed(name: str) -> bool:
    """Whether a name is read: as a tensor's part by PyTorch, or by the list."""
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
