"""The conditional domain adversary: loss against plain sums, signs of gradients, the ramp, the randomised map."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fourds_dist.method.domain_adversary import MOST_OUTER, DomainAdversary

TARGET = torch.tensor([False, True, True, False, True])


def adversary(num_features: int = 4, num_classes: int = 3, ramp_steps: int = 10) -> DomainAdversary:
    torch.manual_seed(0)
    return DomainAdversary(num_features, num_classes, hidden=8, ramp_steps=ramp_steps)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(5, 4, generator=random).requires_grad_(), torch.randn(
        5, 3, generator=random
    ).requires_grad_()


def test_the_loss_is_a_weighted_mean_of_each_domain() -> None:
    of, (f, z) = adversary().eval(), inputs()
    p = z.softmax(1)
    joint = torch.stack([torch.outer(a, b).flatten() for a, b in zip(f, p, strict=True)])
    bce = F.binary_cross_entropy_with_logits(of.layers(joint)[:, 0], TARGET.float(), reduction="none")
    w = 1 + torch.exp((p * p.log()).sum(1))
    means = [(bce * w)[mask].sum() / w[mask].sum() for mask in (TARGET, ~TARGET)]
    torch.testing.assert_close(of(f, z, TARGET), sum(means) / 2)


def test_features_get_the_opposite_gradient_and_predictions_none() -> None:
    of, (f, z) = adversary(), inputs()
    of.num_steps.fill_(5)
    c = 2 / (1 + math.exp(-5)) - 1
    assert of.coefficient().item() == pytest.approx(c)
    of.eval()(f, z, TARGET).backward()
    assert z.grad is None
    reversed_gradient = f.grad
    joint = of.joint(plain := f.detach().requires_grad_(), z.detach().softmax(1))
    bce = F.binary_cross_entropy_with_logits(of.layers(joint)[:, 0], TARGET.float(), reduction="none")
    w = 1 + torch.exp(torch.distributions.Categorical(logits=z.detach()).entropy().neg())
    ((bce * w)[TARGET].sum() / w[TARGET].sum() + (bce * w)[~TARGET].sum() / w[~TARGET].sum()).div(
        2
    ).backward()
    assert plain.grad is not None
    torch.testing.assert_close(reversed_gradient, -c * plain.grad)
    assert all(parameter.grad is not None for parameter in of.parameters())


def test_the_ramp_counts_training_steps_and_is_part_of_the_state() -> None:
    of, (f, z) = adversary(), inputs()
    assert of.coefficient() == 0
    for _ in range(3):
        of(f, z, TARGET)
    of.eval()(f, z, TARGET)
    again = adversary()
    again.load_state_dict(of.state_dict())
    assert again.num_steps == 3
    assert 0 < again.coefficient() < 1


def test_a_domain_without_images_has_no_weight() -> None:
    of, (f, z) = adversary().eval(), inputs()
    only = of(f, z, torch.ones(5, dtype=torch.bool))
    assert 0 < only < 2
    only.backward()
    assert f.grad is not None
    assert torch.isfinite(f.grad).all()


def test_a_large_map_is_randomised() -> None:
    of = adversary(num_features=MOST_OUTER // 4 + 1, num_classes=4)
    assert of.layers[0].in_features == 1024  # pyright: ignore
    f, p = torch.randn(2, MOST_OUTER // 4 + 1), torch.randn(2, 4).softmax(1)
    outer = [torch.outer(a, b).flatten() for a, b in zip(f, p, strict=True)]
    exact, found = outer[0] @ outer[1], torch.dot(*of.joint(f, p))
    # The inner product of random maps estimates that of the outer products.
    assert (found - exact).abs() < 0.3 * outer[0].norm() * outer[1].norm()
