"""Forms of weights that PyTorch splits: each is named, and the call in the message gives a plain state dict."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from fourds_dist.models.weights.form import form_of
from fourds_dist.models.weights.names import MatchedTensors, match_tensors


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("split", "kind", "parameter"),
    [
        (weight_norm, "split by weight_norm", "weight"),
        (spectral_norm, "split by spectral_norm", "weight"),
        (parametrizations.weight_norm, "parametrised", "weight"),
        (parametrizations.spectral_norm, "parametrised", "weight"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "pruned", "weight"),
        (lambda layer: prune.l1_unstructured(layer, "bias", 0.5), "pruned", "bias"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_split_form_is_named_and_its_remedy_works(
    split: Callable[[nn.Module], nn.Module], kind: str, parameter: str, prefix: str
) -> None:
    network = plain()
    layer = split(network[1])
    own = plain().state_dict()
    tensors = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    found = form_of(match_tensors(tensors, own))
    assert found is not None
    call = re.fullmatch(
        rf"its weights are {kind}: call (.*\(layer, '{parameter}'\)) on each such layer before saving", found
    )
    assert call, found
    exec(call[1], {"torch": torch, "layer": layer})
    joined = match_tensors(network.state_dict(), own)
    assert form_of(joined) is None
    assert (joined.missing, joined.unknown) == ([], [])


def test_a_layer_alone_and_several_parameters() -> None:
    layer = prune.l1_unstructured(nn.Linear(4, 2), "bias", 0.5)
    layer = prune.l1_unstructured(layer, "weight", 0.5)
    found = form_of(match_tensors({f"head.{k}": v for k, v in layer.state_dict().items()}, {}))
    assert found is None  # nothing of the network is missing
    found = form_of(MatchedTensors({}, ["weight", "bias"], list(layer.state_dict())))
    assert found is not None
    assert "prune.remove(layer, 'bias') and torch.nn.utils.prune.remove(layer, 'weight') on each" in found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("head.lora_A.weight", "LoRA layers: merge them"),
        ("blocks.0.attn.qkv_lora_b", "LoRA layers: merge them"),
        ("fc._packed_params.dtype", "quantised: give the weights from before"),
        ("conv1.zero_point", "quantised: give the weights from before"),
        ("blocks.0.exploration", None),
        ("head.weight_gain", None),
    ],
)
def test_other_forms_are_named_by_their_tensors(name: str, words: str | None) -> None:
    found = form_of(MatchedTensors({}, ["head.weight"], [name]))
    assert found is None if words is None else found is not None and words in found
    assert form_of(MatchedTensors({}, [], [name])) is None


def test_empty_tensors_are_of_sharded_training() -> None:
    found = form_of(MatchedTensors({"head.weight": torch.empty(0)}, []))
    assert found is not None
    assert "ZeRO 3 or FSDP: gather the weights (zero_to_fp32.py" in found
    assert form_of(MatchedTensors({"head.weight": torch.ones(4)}, [])) is None
