"""The output of a task: the weighted sum of its losses, and what is detached."""

from __future__ import annotations

import torch

from fourds_dist.method.output import Output


def test_the_loss_is_the_weighted_sum_and_the_rest_is_detached() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    losses = {"a": 2 * x, "b": x.square(), "c": x}
    weights = {"a": 0.5, "b": torch.tensor(0.1), "absent": 7.0}  # c has the default weight 1
    output = Output.of(losses, weights, {"student": x * torch.ones(2, 4)})
    torch.testing.assert_close(output.loss, torch.tensor(3.0 + 0.9 + 3.0))
    assert {name: value.item() for name, value in output.losses.items()} == {"a": 6.0, "b": 9.0, "c": 3.0}
    assert output.logits["student"].shape == (2, 4)
    assert not any(t.requires_grad for t in (*output.losses.values(), *output.logits.values()))
    output.loss.backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor(0.5 * 2 + 0.1 * 6 + 1))
