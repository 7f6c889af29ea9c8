"""The defaults of a task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fourds_dist.method.task import Task


class Two(Task):
    """Two networks, one of which is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(2, 3).requires_grad_(False)
        self.learning = nn.Linear(2, 3)


def test_defaults() -> None:
    task = Two()
    assert task.classifiers() == [task.frozen, task.learning]
    groups = task.parameter_groups()
    assert list(groups) == ["student"]
    assert [id(p) for p in groups["student"]] == [id(task.learning.weight), id(task.learning.bias)]
    assert task.log_values() == {}
    assert task.student_stream is None
    before = {name: value.clone() for name, value in task.state_dict().items()}
    task.on_validation({"student": 0.5})
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    with pytest.raises(NotImplementedError):
        task.predictors()
