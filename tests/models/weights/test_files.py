"""Files of weights of any kind: tensors by the path of their keys, other values, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from fourds_dist.io.storage import write_bytes
from fourds_dist.models.weights.files import read_file
from fourds_dist.models.weights.loading import encode_weights
from tests.method import networks
from tests.models.weights.test_loading import State, loaded, saved

KEY = "teacher.checkpoint"


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_are_recognised_by_name_or_content(name: str) -> None:
    url = f"memory://weights/{name}"
    write_bytes(url, save({"a.w": torch.arange(3.0)}, {"classes": "x"}))
    file = read_file(url, what=KEY)
    assert file.where == f"{KEY}: {url}"
    assert {k: v.tolist() for k, v in file.tensors.items()} == {"a.w": [0, 1, 2]}
    assert file.about == {"classes": "x"}


def test_tensors_are_named_by_the_path_of_their_keys(tmp_path: Path) -> None:
    value = {
        "net": {"a": torch.ones(2), "deep": [{"b": torch.zeros(1)}, {"c": torch.ones(1)}]},
        "history": [torch.ones(1), torch.ones(1)],  # a list without dictionaries has no names
        "mean": torch.ones(3),
        "big": torch.ones(4),
        "epoch": 7,
    }
    file = read_file(str(saved(tmp_path / "w.pt", value)), what=KEY)
    assert list(file.tensors) == ["net.a", "net.deep.0.b", "net.deep.1.c", "mean", "big"]
    assert set(file.about) == {"net", "history", "mean", "epoch"}
    assert file.about["epoch"] == 7


def test_arrays_are_tensors_where_there_are_no_others(tmp_path: Path) -> None:
    arrays = {"w": np.arange(4, dtype=np.float32), "names": np.array(["a", "b"])}
    file = read_file(str(saved(tmp_path / "a.pt", arrays)), what=KEY)
    assert {k: v.tolist() for k, v in file.tensors.items()} == {"w": [0, 1, 2, 3]}
    both = read_file(str(saved(tmp_path / "b.pt", {**arrays, "t": torch.ones(1)})), what=KEY)
    assert list(both.tensors) == ["t"]


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (torch.empty(2, device="meta"), r"net\.w has no values \(device meta\)"),
        (torch.eye(2).to_sparse(), r"net\.w is sparse \(torch\.sparse_coo\)"),
    ],
)
def test_tensors_without_dense_values_are_refused(tmp_path: Path, tensor: torch.Tensor, problem: str) -> None:
    path = saved(tmp_path / "w.pt", {"net": {"w": tensor}})
    with pytest.raises(ValueError, match=rf"w\.pt: {problem}; save a state dict of dense tensors"):
        read_file(str(path), what=KEY)


def test_what_is_missing_or_truncated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^{KEY}: .*absent\.pt does not exist$"):
        read_file(str(tmp_path / "absent.pt"), what=KEY)
    (tmp_path / "w.safetensors").write_bytes(save({"w": torch.ones(9)})[:-8])
    with pytest.raises(ValueError, match=r"w\.safetensors is truncated or not a safetensors file \("):
        read_file(str(tmp_path / "w.safetensors"), what=KEY)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": ["a"]}', "no JSON"])
def test_an_index_without_files_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"is not an index of shards of weights \(weight_map\)"):
        read_file(str(path), what=KEY)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (("a.npy", "b.npy"), r"is a file of numpy arrays \(\.npz\); give the state dict"),
        (("w/readme.txt",), "is a zip archive without PyTorch weights; extract the archive"),
        (("w/archive_format",), r"is an exported program \(\.pt2\), not its weights; give the state dict"),
    ],
)
def test_archives_are_named_by_their_members(tmp_path: Path, members: tuple[str, ...], message: str) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for member in members:
            archive.writestr(member, b"")
    with pytest.raises(ValueError, match=message):
        read_file(str(tmp_path / "w.pt"), what=KEY)


def test_several_files_under_one_index_are_read_together(tmp_path: Path, state: State) -> None:
    names = {k: f"model-0000{1 + (i > 5)}-of-00002.safetensors" for i, k in enumerate(state)}
    for file in set(names.values()):
        save_file({k: v for k, v in state.items() if names[k] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    found, _ = loaded(tmp_path / "model.safetensors.index.json")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    with pytest.raises(
        ValueError, match=r"one of 2 shards .* teacher.checkpoint=.*model\.safetensors\.index\.json"
    ):
        loaded(tmp_path / "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "w.onnx",
            b"\x08\x07",
            "is an ONNX model, which cannot be trained or distilled; give the state dict",
        ),
        ("w.pt", b"", "is an empty file"),
        ("w.pt", b"<!DOCTYPE html><html>", "is an HTML page"),
        ("w.pt", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("w.h5", b"\x89HDF\r\n", "is an HDF5 file"),
        ("w.pt.gz", b"\x1f\x8b\x08", "is a compressed file"),
    ],
)
def test_other_kinds_of_files_are_called_by_their_names(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path / name)


def test_folders_and_programs_lead_to_the_file_to_give(tmp_path: Path, state: State) -> None:
    run = tmp_path / "run"
    (run / "source" / "checkpoint-00000012").mkdir(parents=True)
    with pytest.raises(ValueError, match="is a folder without a known file of weights"):
        loaded(run)
    (run / "teacher.safetensors").write_bytes(encode_weights(state, {}))
    (run / "config.yaml").touch()
    for place in (run, run / "source", run / "source" / "checkpoint-00000012"):
        with pytest.raises(ValueError, match=r"is (a|the) .*: teacher\.checkpoint=(.*)$") as refusal:
            loaded(place)
        loaded(Path(str(refusal.value).rpartition("teacher.checkpoint=")[2]))
    with torch.no_grad():
        traced = torch.jit.trace(networks.Convolutions(4).eval(), torch.zeros(1, 3, 16, 16))
    traced.save(str(tmp_path / "w.pt"))  # pyright: ignore
    with pytest.raises(ValueError, match="is a TorchScript program, not its weights; give the state dict"):
        loaded(tmp_path / "w.pt")
    (tmp_path / "w.safetensors").write_bytes(encode_weights(state, {}))
    with pytest.raises(ValueError, match=r"give the weights in its folder, .*w\.safetensors"):
        loaded(tmp_path / "w.pt")
