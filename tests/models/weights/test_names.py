"""Matching of names: the prefix with most of the network's names, what is ignored, and what is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fourds_dist.models.weights.names import MatchedTensors, match_tensors

OWN = {
    "conv.weight": torch.zeros(2, 3),
    "bn.weight": torch.zeros(2),
    "bn.num_batches_tracked": torch.zeros(()),
    "fc.weight": torch.zeros(4, 2),
}


def filled(value: float, prefix: str = "", *, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    return {prefix + name: torch.full_like(t, value) for name, t in OWN.items() if name not in without}


def values(found: MatchedTensors) -> set[float]:
    return {t.flatten()[0].item() for t in found.weights.values()}


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [
        ("DDP", filled(1, "module.")),
        ("torch.compile", filled(1, "_orig_mod.")),
        ("DDP of a compiled network", filled(1, "module._orig_mod.")),
        ("FSDP", {k.replace("conv.", "conv._fsdp_wrapped_module."): v for k, v in filled(1).items()}),
        ("Lightning", filled(1, "state_dict.model.")),
    ],
)
def test_prefixes_and_wrappers_are_removed(name: str, wrapped: dict[str, Tensor]) -> None:
    found = match_tensors(wrapped, OWN)
    assert found.weights.keys() == OWN.keys(), name
    assert (found.missing, found.unknown) == ([], [])
    assert values(found) == {1}


def test_a_network_s_own_wrapper_keeps_its_name() -> None:
    own = {f"module.{name}": tensor for name, tensor in OWN.items()}
    found = match_tensors(filled(1, "module."), own)
    assert (found.weights.keys(), found.remarks) == (own.keys(), [])
    found = match_tensors(filled(1), own)
    assert (found.weights.keys(), found.remarks) == (
        own.keys(),
        ["the names lack the network's prefix module"],
    )


@pytest.mark.parametrize(
    ("tensors", "role", "value"),
    [
        (filled(1, "state_dict.") | filled(2, "state_dict_ema."), "", 2),
        (filled(1, "model.") | filled(2, "averaged_model."), "teacher", 2),
        (filled(1, "teacher.") | filled(2, "student."), "student", 2),
        (filled(1, "teacher.") | filled(2, "student."), "teacher", 1),
        (filled(1, "last.ema.") | filled(2, "best."), "", 2),  # the best epoch before the average
        (filled(1) | filled(2, "model.", without=("fc.weight",)), "", 1),  # most names come first
    ],
)
def test_one_of_several_networks_is_selected(tensors: dict[str, Tensor], role: str, value: float) -> None:
    found = match_tensors(tensors, OWN, role=role)
    assert values(found) == {value}
    assert found.missing == []


def test_a_selection_is_reported() -> None:
    found = match_tensors(filled(1, "model.") | filled(2, "model_ema."), OWN)
    assert found.remarks == ["the file has several networks: model_ema is used, not model"]


def test_the_shapes_decide_between_two_networks_of_equal_names() -> None:
    other = {f"best.{name}": torch.zeros(9, 9) for name in OWN}
    assert values(match_tensors(filled(1, "small.") | other, OWN)) == {1}


def test_a_head_of_another_prefix_is_found_by_the_end_of_its_names() -> None:
    body = filled(1, "encoder.", without=("fc.weight",))
    found = match_tensors({**body, "probe.fc.weight": torch.full((4, 2), 5.0)}, OWN)
    assert found.weights["fc.weight"].tolist() == [[5.0] * 2] * 4
    assert "fc.weight is read from probe.fc.weight" in found.remarks
    for heads in (
        {"a.fc.weight": torch.ones(4, 2), "b.fc.weight": torch.ones(4, 2)},
        {"a.fc.weight": torch.ones(5, 2)},
    ):
        assert match_tensors({**body, **heads}, OWN).missing == ["fc.weight"]


@pytest.mark.parametrize(
    ("name", "is_unknown"),
    [
        ("criterion.weight", False),
        ("optimizer.state.0.exp_avg", False),
        ("normalize.mean", False),
        ("AuxLogits.fc.weight", False),
        ("n_averaged", False),
        ("conv2.weight", True),
        ("layer.9.weight", True),
        ("meaning.weight", True),
    ],
)
def test_only_what_no_classifier_has_is_ignored(name: str, is_unknown: bool) -> None:
    found = match_tensors({**filled(1), name: torch.ones(2)}, OWN)
    assert found.unknown == [name] * is_unknown
    ignored = [f"ignored, not part of the network: {name.split('.')[0]}"]
    assert found.remarks == ([] if is_unknown else ignored)


def test_missing_names_are_listed_without_counters() -> None:
    found = match_tensors(filled(1, without=("bn.num_batches_tracked", "fc.weight")), OWN)
    assert found.missing == ["fc.weight"]
    assert match_tensors({}, OWN).missing == ["conv.weight", "bn.weight", "fc.weight"]


def test_old_names_of_densenet_are_known() -> None:
    own = {f"features.denselayer3.{kind}.weight": torch.zeros(2) for kind in ("norm1", "conv2")}
    old = {f"features.denselayer3.{kind}.weight": torch.ones(2) for kind in ("norm.1", "conv.2")}
    assert values(match_tensors(old, own)) == {1}


def test_names_can_be_taken_out() -> None:
    found = match_tensors(filled(1), OWN)
    fewer = found.without(["fc.weight", "absent"])
    assert OWN.keys() - fewer.weights.keys() == {"fc.weight"}
    assert "fc.weight" in found.weights
