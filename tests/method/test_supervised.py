"""The source stage's task: each classifier has its own loss on the shared batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fourds_dist.method.supervised import SourceClassifiers


def test_every_classifier_has_its_own_loss_on_the_shared_batch() -> None:
    torch.manual_seed(0)
    networks = {name: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)) for name in ("teacher", "student")}
    task = SourceClassifiers(networks)
    images, labels = torch.randn(4, 3, 2, 2), torch.tensor([0, 2, -1, 1])
    output = task(images, labels)
    expected = {
        f"{name}_ce": F.cross_entropy(network(images)[labels >= 0], labels[labels >= 0]).detach()
        for name, network in networks.items()
    }
    torch.testing.assert_close(output.losses, expected)
    torch.testing.assert_close(output.loss.detach(), sum(expected.values()))
    assert list(output.logits) == ["teacher", "student"]
    torch.testing.assert_close(output.logits["student"], networks["student"](images).detach())
    gradient = torch.autograd.grad(output.loss, networks["teacher"][1].weight, retain_graph=True)[0]  # type: ignore[arg-type]
    alone = torch.autograd.grad(
        F.cross_entropy(networks["teacher"](images), labels, ignore_index=-1),
        networks["teacher"][1].weight,  # type: ignore[arg-type]
    )[0]
    torch.testing.assert_close(gradient, alone)


def test_classifiers_and_predictors_are_the_networks() -> None:
    networks = {"teacher": nn.Linear(2, 2), "student": nn.Linear(2, 2)}
    task = SourceClassifiers(networks)
    assert task.classifiers() == [networks["teacher"], networks["student"]]
    assert task.predictors() == networks
    assert next(name for name, _ in task.named_parameters()) == "networks.teacher.weight"
