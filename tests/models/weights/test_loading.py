"""Weights of other trainers: found, cast and reported; weights that do not fit are refused."""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fourds_dist.io.unpickling import conversion
from fourds_dist.models.weights.loading import encode_weights, load_weights
from fourds_dist.models.weights.metadata import NetworkMetadata
from tests.method import networks

State = dict[str, Tensor]
CLASSES = ("ant", "bee", "cat", "dog")
RUN = NetworkMetadata(
    "x", "imagenet", CLASSES, {"resize_px": 36, "crop_px": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3}
)


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def loaded(
    path: Path, run: NetworkMetadata | None = None, *, network: nn.Module | None = None, **more: Any
) -> tuple[State, list[str]]:
    """The network's state after loading, and the messages."""
    told: list[str] = []
    network = network or networks.Convolutions(4)
    load_weights(
        str(path), network, what="teacher.checkpoint", run=run, image_size=16, notify=told.append, **more
    )
    return network.state_dict(), told


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if name.startswith("head")}


def body(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head")}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda s: under("module.", s), "removed from the names: module"),
        (lambda s: under("_orig_mod.module.", s), "removed from the names: _orig_mod, module"),
        (lambda s: {"net": under("backbone.", s)}, "removed from the names: net.backbone"),
        (lambda s: {"model_state_dict": s, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}, "ignored, .*optimizer"),
        (lambda s: {"state_dict": {**under("model.", s), "train_acc.tp": torch.ones(4)}}, "ignored, .*train_acc"),
        (lambda s: {**s, "criterion.weight": torch.ones(4)}, "ignored, .*criterion"),
        (lambda s: {**s, "normalize.mean": torch.zeros(1, 3, 1, 1)}, "ignored, .*normalize"),
        (lambda s: {"model": under("module.", s), "model_ema": under("module.", s)}, "model_ema.* is used, not model"),
        (lambda s: {"last": {"net": s}, "best": {"net": s}}, "best.net is used, not last.net"),
        (lambda s: (3, s), "removed from the names: 1"),
        (lambda s: {k: v.numpy() for k, v in s.items()}, None),
        (lambda s: {"student": s, "teacher": s}, "teacher is used, not student"),
        (lambda s: {**under("encoder.", body(s)), **under("module.", head(s))}, "removed from the names: .*encoder"),
        (lambda s: {"n_averaged": torch.tensor(3), **under("module.", s)}, "names: module; ignored, .*n_averaged"),
        (lambda s: {k.replace("a.", "a._fsdp_wrapped_module."): v for k, v in s.items()}, "from the names: _fsdp"),
        (lambda s: {"state_dict": s, "args": argparse.Namespace(x=1, p=Path("a")), "best": np.float64(3)}, None),
        (lambda s: {"model": collections.OrderedDict(s), "rng": np.arange(3), "d": collections.deque([1])}, None),
        (lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}, None),
        (lambda s: {k: v.bfloat16() if v.is_floating_point() else v for k, v in s.items()}, None),
        (lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("archive", [True, False])
def test_a_network_is_found_in_any_nesting(
    tmp_path: Path, state: State, make: Callable[[State], Any], words: str | None, archive: bool
) -> None:
    path = saved(tmp_path / "w.pth.tar", make(state), _use_new_zipfile_serialization=archive)
    found, told = loaded(path, RUN)
    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-2, atol=1e-2)
    assert len(told) == (words is not None)
    if words is not None:
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(told[0])


def test_counters_of_batch_norm_may_be_missing_and_a_wrapper_s_names_too(
    tmp_path: Path, state: State
) -> None:
    path = saved(tmp_path / "w.pt", {k: v for k, v in state.items() if "num_batches" not in k})
    found, told = loaded(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert told == []
    wrapper = nn.Sequential(collections.OrderedDict(net=networks.Convolutions(4)))
    found, told = loaded(path, network=wrapper)
    assert torch.equal(found["net.head.weight"], state["head.weight"])
    assert "lack the network's prefix net" in told[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: {**s, "b.3.weight": torch.ones(8, 8, 3, 3)}, r"1 unknown \(first: b\.3\.weight\); check teacher."),
        (lambda s: {**s, "head.bias": torch.full((4,), float("nan"))}, "head.bias has values that are not finite"),
        (lambda s: {k: v.to(torch.int8) for k, v in s.items()}, "has type torch.int8, expected torch.float32"),
        (lambda s: {**s, "head.weight": torch.ones(4, 9)}, r"has shape \(4, 9\), expected \(4, 8\); check arch, stem"),
        (lambda s: {"module": {k: v.new_empty(0) for k, v in s.items()}}, r"ZeRO 3 or FSDP: gather .*zero_to_fp32"),
        (lambda s: {**body(s), "head.weight_orig": s["head.weight"], "head.weight_mask": s["head.weight"]}, "prune.re"),
        (lambda s: {**body(s), "head.weight_g": s["head.bias"], "head.weight_v": s["head.weight"]}, "remove_weight_n"),
        (lambda s: {**body(s), "head.base_layer.bias": s["head.bias"], "head.lora_A.w": s["head.weight"]}, "merge"),
        (lambda s: {k: v.to(torch.complex64) for k, v in s.items()}, "complex64, expected .* give real weights"),
        (lambda s: body(s), r"2 missing \(first: head.weight\)"),
        (lambda s: {"adapters.0.w": torch.ones(2), "teacher.a.1.running_mean": torch.ones(8)}, "has the adapters"),
        (lambda s: {"format": 2, "identity": {}, "weights": s}, "is a checkpoint of a run's stage"),
        (lambda s: {"a": 1}, "has no state dict"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    tmp_path: Path, state: State, make: Callable[[State], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loaded(saved(tmp_path / "w.pt", make(state)))


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: {"epoch": 1, "model": n}])
def test_pickled_networks_are_refused_with_a_command_that_converts_them(
    tmp_path: Path, state: State, wrap: Callable[[nn.Module], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks.Convolutions(4)
    network.load_state_dict(state)
    path = saved(tmp_path / "whole.pt", wrap(network))
    with pytest.raises(
        ValueError, match=r"pickled code, which is never run \(tests.method.networks.C"
    ) as refusal:
        loaded(path)
    command = conversion(str(path))
    assert command in str(refusal.value)
    monkeypatch.chdir(tmp_path)
    _, _, code = shlex.split(command)
    exec(code, {})
    found, _ = loaded(tmp_path / "weights.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_plain_pickles_are_refused_with_a_command_that_converts_them(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in state.items()}}))
    with pytest.raises(ValueError, match=r"a pickle that torch.save did not write.* python -c ") as refusal:
        loaded(path)
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(str(refusal.value).partition("weights.safetensors: ")[2])[2], {})
    found, _ = loaded(tmp_path / "weights.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_tied_weights_are_written_for_every_name_and_loaded_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = networks.tied(4)
    big = torch.arange(8.0)
    data = encode_weights(
        {**network.state_dict(), "view": big[:4], "other": big[2:6], "none": big[:0]}, {"a": "b"}
    )
    (tmp_path / "w.safetensors").write_bytes(data)
    found = load_file(tmp_path / "w.safetensors")
    assert torch.equal(found["other"], big[2:6])
    assert torch.equal(found["b.0.weight"], found["b.3.weight"])
    (tmp_path / "w.safetensors").write_bytes(encode_weights(network.state_dict(), {}))
    again = networks.tied(4)
    loaded(tmp_path / "w.safetensors", network=again)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(again.eval()(images), network.eval()(images))


def ours(state: State, path: Path, **changes: str) -> Path:
    prepared = {"resize_px": 36, "crop_px": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    about = {"format": "fourds_dist", "arch": "x", "stem": "imagenet", "classes": "\n".join(CLASSES)}
    path.write_bytes(encode_weights(state, {**about, "preprocessing": json.dumps(prepared), **changes}))
    return path


def test_classes_in_another_order_are_reordered_by_name(tmp_path: Path, state: State) -> None:
    network = networks.Convolutions(4)
    network.load_state_dict(state)
    images = torch.rand(3, 3, 16, 16)
    before = network.eval()(images)
    order = ("dog", "ant", "cat", "bee")
    kinds: list[Any] = [
        {"classes": list(order)}, {"class_to_idx": {name: i for i, name in enumerate(order)}},
        {"hyper_parameters": {"id2label": dict(enumerate(order))}}, {"meta": {"CLASSES": order}},
        {"args": argparse.Namespace(class_names=np.array(order))},
    ]  # fmt: skip
    files = [ours(state, tmp_path / "w.safetensors", classes="\n".join(order))]
    files += [saved(tmp_path / f"{i}.pt", {"state_dict": state, **kind}) for i, kind in enumerate(kinds)]
    for file in files:
        found, told = loaded(file, RUN)
        network.load_state_dict(found)
        after = network.eval()(images)
        for name in CLASSES:
            torch.testing.assert_close(after[:, CLASSES.index(name)], before[:, order.index(name)])
        assert "reordered head.weight, head.bias by class name" in told[0]
        found, told = loaded(file, RUN, metadata="ignore")
        assert torch.equal(found["head.weight"], state["head.weight"])
        assert "classes are in another order" in told[0]


def test_another_network_is_named_by_the_metadata(tmp_path: Path, state: State) -> None:
    file = ours(body(state), tmp_path / "w.safetensors", arch="resnet10", stem="small")
    with pytest.raises(
        ValueError, match=r"made for another network: teacher\.arch=resnet10, teacher\.stem=small$"
    ):
        loaded(file, RUN)
