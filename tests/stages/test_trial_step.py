"""A pass of a network or a task without data: it finds faults, and leaves everything as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fourds_dist.stages.trial_step import (
    call_on_blank_images,
    freeze_unreached,
    last_operation,
    parameters_without_gradient,
)
from tests.method import networks
from tests.training.tiny import SIDE, tiny_four_ds


@pytest.mark.parametrize(
    ("network", "operation"),
    [("convolutions", "Addmm"), ("frozen", "Addmm"), ("ends_in_softmax", "Softmax"), ("gives_answers", None)],
)
def test_the_last_operation_of_a_network(network: str, operation: str | None) -> None:
    built = getattr(networks, network)(5)
    learning = [parameter.requires_grad for parameter in built.parameters()]
    assert last_operation(built, side_px=16, training=True) == operation
    assert [parameter.requires_grad for parameter in built.parameters()] == learning


def test_random_numbers_stay_as_they_were() -> None:
    torch.manual_seed(3)
    task = networks.Convolutions(5)
    before = torch.get_rng_state()
    call_on_blank_images(task, batch_size=2, side_px=16)
    assert torch.equal(torch.get_rng_state(), before)
    assert not task.a[1].num_batches_tracked.any()  # pyright: ignore


def test_modes_and_buffers_stay_as_they_were() -> None:
    network = networks.Convolutions(5).train()
    network.b.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    logits = call_on_blank_images(network, batch_size=3, side_px=8, training=False)
    assert logits.shape == (3, 5)
    assert logits.requires_grad
    assert [network.a.training, network.b.training, network.training] == [True, False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def task_with_idle_layers(num: int) -> nn.Module:
    task = tiny_four_ds()
    task.idle = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(num))  # pyright: ignore
    return task


def test_parameters_without_a_gradient_are_found_and_nothing_changes() -> None:
    task = task_with_idle_layers(1)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    assert parameters_without_gradient(tiny_four_ds(), batch_size=2, side_px=SIDE) == []
    found = parameters_without_gradient(task, batch_size=2, side_px=SIDE)
    assert found == ["idle.0.weight"]
    assert all(p.grad is None for p in task.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.state_dict().items())


def test_unreached_parameters_are_frozen_and_named() -> None:
    task, told = task_with_idle_layers(7), []
    learning = sum(p.requires_grad for p in task.parameters())
    freeze_unreached(task, num_images=2, side_px=SIDE, notify=told.append)
    assert sum(p.requires_grad for p in task.parameters()) == learning - 7
    names = ", ".join(f"idle.{n}.weight" for n in range(5))
    assert told == [f"{names} and 2 more: no loss reaches these parameters, which stay unchanged"]
    freeze_unreached(task, num_images=2, side_px=SIDE, notify=told.append)
    assert len(told) == 1


def test_a_network_that_does_not_fit_raises_its_own_error_and_is_not_frozen() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        call_on_blank_images(networks.of_grey_images(5), batch_size=2, side_px=8)
    task, told = tiny_four_ds(), []
    learning = [p.requires_grad for p in task.parameters()]
    with pytest.raises(Exception, match=r".+"):
        parameters_without_gradient(task, batch_size=2, side_px=0)
    freeze_unreached(task, num_images=2, side_px=0, notify=told.append)
    assert (told, [p.requires_grad for p in task.parameters()]) == ([], learning)
