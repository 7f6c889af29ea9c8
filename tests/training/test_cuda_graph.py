"""Captured steps: replays equal steps without a graph, and a wait for the device is found by the submodule's name."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.training.cuda_graph import (
    CaptureError,
    CudaGraphStep,
    HangWatch,
    _first_line,
    no_trace,
    why_not_captured,
)


class Peeks(nn.Module):
    """Reads a value on the host."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean().item() > 1e9 else x * 1.0


def test_an_error_is_told_by_its_first_line() -> None:
    assert _first_line(RuntimeError("\n  \nfirst\nsecond")) == "first"
    assert _first_line(KeyError()) == "KeyError"


def test_a_watch_ends_with_its_owner() -> None:
    before = set(threading.enumerate())
    watch = HangWatch(timeout_s=0.01)
    (thread,) = [t for t in threading.enumerate() if t.name == "hang-watch" and t not in before]
    assert thread.daemon
    assert thread.is_alive()
    del watch
    thread.join(timeout=60)
    assert not thread.is_alive()


@pytest.mark.gpu
def test_the_submodule_that_waits_is_named() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), Peeks())).cuda()
    x = torch.ones(3, 2, device="cuda")
    reason = why_not_captured(lambda: network(x), network)
    assert reason is not None
    assert reason.startswith("1.1 (Peeks): ")
    assert torch.cuda.get_sync_debug_mode() == 0
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks
    assert why_not_captured(lambda: network[:1](x), network) is None
    outside = why_not_captured(lambda: network[:1](x).sum().item(), network)
    assert outside is not None
    assert outside.startswith("the step: ")


@pytest.mark.gpu
def test_a_replay_computes_what_the_step_computes() -> None:
    device = torch.device("cuda", 0)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).to(device)
    first, second = torch.randn(2, 8, 4, device=device)

    def run(x: Tensor) -> Tensor:
        network.zero_grad(set_to_none=True)
        loss = network(x).pow(3).mean()
        loss.backward()
        return loss.detach()

    mean = network[1].running_mean.clone()  # pyright: ignore
    state = torch.cuda.get_rng_state(device)
    step = CudaGraphStep(run, network, (first,), device=device)
    assert torch.equal(network[1].running_mean, mean)  # pyright: ignore
    assert torch.equal(torch.cuda.get_rng_state(device), state)
    for x in (second, first):
        loss = step.replay(x).clone()
        gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        torch.testing.assert_close(loss, run(x))
        torch.testing.assert_close(gradients, [p.grad for p in network.parameters()])


@pytest.mark.gpu
def test_a_step_that_waits_cannot_be_captured_and_leaves_no_trace() -> None:
    device = torch.device("cuda", 0)
    network = nn.Sequential(nn.BatchNorm1d(2), Peeks()).to(device)
    x = torch.randn(4, 2, device=device)
    with pytest.raises(CaptureError):
        CudaGraphStep(network, network, (x,), device=device)
    assert not network[0].running_mean.any()  # pyright: ignore
    with no_trace(network, device):
        network(x)
    assert not network[0].running_mean.any()  # pyright: ignore
    assert torch.rand(2, device=device).shape == (2,)  # random numbers work again
