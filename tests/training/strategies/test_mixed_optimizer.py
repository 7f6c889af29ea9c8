"""One optimiser with SGD and AdamW groups against PyTorch's optimisers."""

from __future__ import annotations

import torch

from fourds_dist.training.strategies.mixed_optimizer import KINDS, MixedOptimizer


def test_parameters_without_a_gradient_stay_and_have_no_state() -> None:
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    group = {"params": [used, unused], "kind": "sgd", "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}
    optimizer = MixedOptimizer([group])
    used.grad = torch.tensor([1.0, -1.0])
    optimizer.step()
    assert used.tolist() == [0.5, 1.5]
    assert unused.tolist() == [1.0, 1.0]
    assert set(optimizer.state) == {used}


def test_states_are_zeros_by_kind() -> None:
    optimizer = MixedOptimizer([{"params": [torch.nn.Parameter(torch.ones(1))], "kind": "sgd"}])
    part = torch.ones(3)
    optimizer.create_state(part, "adamw")
    assert optimizer.state[part].keys() == {*KINDS["adamw"], "step"}
    assert all(not value.any() for value in optimizer.state[part].values())
    optimizer.create_state(part, "sgd")
    assert optimizer.state[part].keys() == {"momentum_buffer"}


def test_mixed_groups_step_as_torch_s_optimisers_do() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(5)) for _ in range(2)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    mixed = MixedOptimizer(
        [
            {"params": ours[:1], "kind": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
            {"params": ours[1:], "kind": "adamw", "lr": 0.1, "eps": 1e-4, "weight_decay": 0.1},
        ]
    )
    pair = [
        torch.optim.SGD(theirs[:1], lr=0.1, momentum=0.9, weight_decay=0.01),
        torch.optim.AdamW(theirs[1:], lr=0.1, eps=1e-4, weight_decay=0.1),
    ]
    for step in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(5, generator=torch.Generator().manual_seed(step))
            q.grad = p.grad.clone()
        mixed.step()
        for optimizer in pair:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
