"""Optimisers and schedules: learning rates really decay, by the share of the run that is done."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fourds_dist.training.strategies.optim import OptimConfig, TaskOptimizers, cosine_factor, sgd_factor


def test_steps_decay_at_the_paper_s_epochs() -> None:
    config = OptimConfig()
    factors = {epoch: sgd_factor(config, epoch / 120) for epoch in (0, 39, 40, 69, 70, 99, 100, 119)}
    assert list(factors.values()) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_warmup_rises_to_one_and_cosine_falls_to_zero() -> None:
    config = OptimConfig(schedule="cosine", warmup=0.1)
    assert [sgd_factor(config, d) for d in (0, 0.05, 0.1, 0.55, 1.0)] == pytest.approx(
        [0, 0.5, 1, 0.5, 0], abs=1e-12
    )
    assert cosine_factor(1.0) == pytest.approx(0, abs=1e-12)


def make() -> tuple[nn.Linear, nn.Linear, TaskOptimizers]:
    torch.manual_seed(0)
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    groups = {"student": list(a.parameters()), "adapters": list(b.parameters())}
    return a, b, TaskOptimizers(groups, OptimConfig(schedule="cosine"), num_steps=10)


def advance(a: nn.Linear, b: nn.Linear, optimizers: TaskOptimizers, steps: range) -> list[dict[str, float]]:
    rates = []
    for step in steps:
        for module in (a, b):
            module.zero_grad()
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        (a(x).square().sum() + b(x).square().sum()).backward()
        optimizers.step()
        rates.append(optimizers.learning_rates())
    return rates


def test_both_groups_follow_their_own_cosine_step_by_step() -> None:
    rates = advance(*make(), range(10))
    for name, first in (("student", 0.01), ("adapters", 1e-3)):
        expected = [first * cosine_factor((step + 1) / 10) for step in range(10)]
        assert [rate[name] for rate in rates] == pytest.approx(expected, abs=1e-12)


def test_resuming_equals_never_stopping() -> None:
    a, b, whole = make()
    advance(a, b, whole, range(10))
    c, d, first = make()
    advance(c, d, first, range(6))
    trained = nn.ModuleDict({"c": c, "d": d})
    state = first.state_by_name(trained)
    assert set(state["c.weight"]) == {"momentum_buffer"}
    assert {"exp_avg", "exp_avg_sq", "step"} <= set(state["d.weight"])
    e, f, second = make()
    again = nn.ModuleDict({"c": e, "d": f})
    again.load_state_dict(trained.state_dict())
    second.load_by_name(again, state, step=6)
    assert second.learning_rates() == first.learning_rates()
    advance(e, f, second, range(6, 10))
    for x, y in zip([*a.parameters(), *b.parameters()], [*e.parameters(), *f.parameters()], strict=True):
        assert torch.equal(x, y)


def test_state_of_another_model_is_refused() -> None:
    a, b, optimizers = make()
    with pytest.raises(ValueError, match=r"another model: nothing here trains x\.weight"):
        optimizers.load_by_name(nn.ModuleDict({"c": a, "d": b}), {"x.weight": {}}, step=1)


def test_gradients_are_clipped_per_optimiser() -> None:
    module = nn.Linear(3, 2)
    optimizers = TaskOptimizers({"student": list(module.parameters())}, OptimConfig(max_grad_norm=1e-3), 10)
    (module(torch.ones(1, 3)) * 1e3).sum().backward()
    optimizers.step()
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert torch.stack([g.norm() for g in grads]).norm().item() == pytest.approx(1e-3, rel=1e-3)
