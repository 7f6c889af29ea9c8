"""Checkpoints and weights: whole or not at all, and nothing is unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from fourds_dist.io.storage import write_bytes
from fourds_dist.models.weights.loading import encode_weights, load_weights
from fourds_dist.training.checkpoint.learning_state import learning_state, load_learning_state


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


class Explosive:
    def __reduce__(self):
        return (Path("/nonexistent/never-run").write_text, ("boom",))


def test_weights_survive_writing(tmp_path: Path) -> None:
    a, b = network(), network()
    url = str(tmp_path / "deep" / "w.safetensors")
    write_bytes(url, encode_weights(a.state_dict(), {"arch": "x"}))
    load_weights(url, b, what="teacher.checkpoint")
    assert all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["w.safetensors"]


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    """Although the library orders metadata randomly in every call."""
    state, metadata = network().state_dict(), {f"key {n}": "é" for n in range(9)}
    data = encode_weights(state, metadata)
    assert all(encode_weights(state, dict(reversed(metadata.items()))) == data for _ in range(9))
    (tmp_path / "w.safetensors").write_bytes(data)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == metadata
    assert encode_weights(state, {}) == encode_weights(state, {})


def test_a_plain_state_dict_is_read_too(tmp_path: Path) -> None:
    a, b = network(), network()
    torch.save({"state_dict": a.state_dict()}, tmp_path / "w.pt")
    load_weights(str(tmp_path / "w.pt"), b, what="teacher.checkpoint")
    assert torch.equal(a[0].weight, b[0].weight)


def test_bad_weights_are_refused_by_name(tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    good.write_bytes(encode_weights(network().state_dict(), {}))
    cases: dict[str, tuple[Path, str]] = {}

    cases["another width"] = (good, r"does not fit.*0\.weight has shape \(4, 3\), expected \(5, 3\)")
    (cut := tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-20])
    cases["cut safetensors"] = (cut, "truncated")
    torch.save(network().state_dict(), whole := tmp_path / "whole.pt")
    (cut_pt := tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:300])
    cases["cut pt"] = (cut_pt, "truncated or not a PyTorch file")
    torch.save({"a": Explosive()}, code := tmp_path / "code.pt")
    cases["pickled code"] = (code, "pickled code, which is never run")
    (raw := tmp_path / "raw.pt").write_bytes(pickle.dumps(Explosive()))
    cases["bare pickle"] = (raw, r"pickled code|not a PyTorch file")
    torch.save([1, 2], listed := tmp_path / "list.pt")
    cases["no state dict"] = (listed, "has no state dict")
    cases["missing"] = (tmp_path / "absent.pt", "does not exist")
    torch.save({"other": torch.zeros(1)}, other := tmp_path / "other.pt")
    cases["other names"] = (other, r"missing \(first: 0\.weight\).*unknown \(first: other\)")

    for name, (path, message) in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            load_weights(str(path), network(5), what="teacher.checkpoint")
        assert "teacher.checkpoint" in str(error.value), name
        assert str(path) in str(error.value), name
    assert not Path("/nonexistent").exists()


def test_frozen_parameters_stay_out_and_others_must_fit() -> None:
    task = nn.ModuleDict({"teacher": network().requires_grad_(False), "student": network()})
    state = learning_state(task)
    assert "student.0.weight" in state
    assert "teacher.0.weight" not in state
    assert "teacher.1.running_mean" in state
    load_learning_state(task, state)
    with pytest.raises(ValueError, match="another model"):
        load_learning_state(nn.ModuleDict({"student": network()}), state)
