"""PyTorch files are read without running pickled code, whatever settings they hold beside tensors."""

from __future__ import annotations

import argparse
import io
import pickle
import shlex
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fourds_dist.io.unpickling import conversion, global_names, torch_load
from tests.method import networks

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.bfloat16)}


def saved(value: Any, archive: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=archive)
    return out.getvalue()


@pytest.mark.parametrize("archive", [True, False])
def test_tensors_and_settings(archive: bool) -> None:
    value = {
        "state_dict": OrderedDict(WEIGHTS),
        "args": argparse.Namespace(lr=0.1, folder=Path("a/b"), mean=np.array([0.5, 0.25])),
        "best": np.float64(3.5),
        "recent": deque([1, 2]),
        "rng": np.arange(3),
    }
    found = torch_load(saved(value, archive), "w.pt", "w.pt")
    assert list(found["state_dict"]) == list(WEIGHTS)
    assert all(torch.equal(found["state_dict"][name], tensor) for name, tensor in WEIGHTS.items())
    settings = vars(found["args"])  # an object is a dictionary with the object's attributes
    assert isinstance(found["args"], dict)
    assert settings["lr"] == 0.1
    np.testing.assert_array_equal(settings["mean"], [0.5, 0.25])
    assert (found["best"], list(found["recent"]), found["rng"].tolist()) == (3.5, [1, 2], [0, 1, 2])


class Harmful:
    """Runs code when it is unpickled."""

    ran: list[int] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[Any, ...]:
        return Harmful.ran.append, (1,)


@pytest.mark.parametrize("archive", [True, False])
def test_code_is_refused_and_never_run(archive: bool) -> None:
    for value in (networks.Convolutions(2), {"model": WEIGHTS, "x": Harmful()}):
        with pytest.raises(
            ValueError, match=r"^w\.pt holds pickled code, which is never run.*python -c "
        ) as error:
            torch_load(saved(value, archive), "w.pt", "some/w.pt")
        assert conversion("some/w.pt") in str(error.value)
    assert Harmful.ran == []


@pytest.mark.parametrize("value", [WEIGHTS, Harmful()])
def test_plain_pickles_are_refused_unread(value: Any) -> None:
    for protocol in (0, 1, 2, 5):
        with pytest.raises(ValueError, match=r"^w\.pkl is a pickle that torch\.save did not write") as error:
            torch_load(pickle.dumps(value, protocol), "w.pkl", "w.pkl")
        assert conversion("w.pkl", is_plain_pickle=True) in str(error.value)
    assert Harmful.ran == []


def test_damaged_files() -> None:
    for data in (b"", saved(WEIGHTS)[:-200], saved(WEIGHTS, False)[:-7], saved(WEIGHTS, False)[:100]):
        with pytest.raises(ValueError, match=r"^w\.pt is truncated or not a PyTorch file \(.+\)$"):
            torch_load(data, "w.pt", "w.pt")


@pytest.mark.parametrize(
    "data", [b"no file of PyTorch", bytes(100), bytes(range(256)), b"PK\x03", b"epoch,loss\n1,2.5\n"]
)
def test_other_files_are_not_called_pickles(data: bytes) -> None:
    with pytest.raises(
        ValueError, match=r"^w\.pt is not a PyTorch file: it begins with b.*; give a file that torch\.save"
    ):
        torch_load(data, "w.pt", "w.pt")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_every_protocol_of_files_before_the_zip_format(protocol: int) -> None:
    out = io.BytesIO()
    torch.save(
        {"w": WEIGHTS["a.weight"], "x": Harmful()},
        out,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=False,
    )
    with pytest.raises(ValueError, match=r"^w\.pt holds pickled code, which is never run"):
        torch_load(out.getvalue(), "w.pt", "w.pt")
    assert Harmful.ran == []


@pytest.mark.parametrize("name", ["w.pt", 'it\'s a "w".pt', "$HOME`x`!\\.pt"])
def test_the_command_writes_all_tensors(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = networks.Convolutions(2)
    Path(name).write_bytes(saved({"epoch": 3, "model": network, "ema": {"bias": WEIGHTS["a.bias"]}}))
    python, flag, code = shlex.split(conversion(name))
    assert (python, flag) == ("python", "-c")
    exec(code, {})
    expected = {f"model.{k}": v for k, v in network.state_dict().items()} | {"ema.bias": WEIGHTS["a.bias"]}
    found = load_file("weights.safetensors")
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    Path(name).write_bytes(pickle.dumps({"net": {"w": np.arange(4.0)}}))
    exec(shlex.split(conversion(name, is_plain_pickle=True))[2], {})
    assert load_file("weights.safetensors")["net.w"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_names_of_classes(archive: bool, protocol: int) -> None:
    other = {
        "torch._utils._rebuild_tensor_v2",
        "torch.BFloat16Storage",
        "copyreg._reconstructor",
        "builtins.object",
    }
    value = {"a": argparse.Namespace(), "b": OrderedDict(), "c": argparse.Namespace(), "d": complex}
    value |= {
        "w": WEIGHTS["a.bias"],
        "x": WEIGHTS["a.bias"],
    }  # module names that repeat are in the pickle's memo
    out = io.BytesIO()
    torch.save(value, out, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    found = global_names(out.getvalue())
    named = {"argparse.Namespace", "collections.OrderedDict", "builtins.complex", "torch.BFloat16Storage"}
    assert named <= found <= named | other
    assert global_names(b"") == global_names(b"no pickle") == global_names(b"PK\x03\x04") == set()
