"""The moving average of weights: PyTorch's, not updated in skipped steps, evaluated and stored, resumed exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fourds_dist.method import SourceClassifiers
from fourds_dist.training.weight_average import WeightAverage
from tests.training.test_loop import CONFIG, Memory, run, same
from tests.training.tiny import tiny_network


def task() -> SourceClassifiers:
    torch.manual_seed(0)
    result = SourceClassifiers({"teacher": tiny_network(4)})
    result.get_parameter("networks.teacher.layer1.0.weight").requires_grad_(False)
    return result


def change(module: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_the_average_is_pytorch_s() -> None:
    own = task()
    average = WeightAverage(own, 0.9)
    reference = AveragedModel(own, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    reference.update_parameters(own)  # the first call copies the weights
    for step in range(5):
        change(own, step)
        average.update()
        reference.update_parameters(own)
    expected = {n: p for n, p in reference.module.named_parameters() if own.get_parameter(n).requires_grad}
    found = average.state()
    assert found is not None
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_skipped_step_leaves_the_average_unchanged() -> None:
    own = task()
    average = WeightAverage(own, 0.9)
    before = average.state()
    assert before is not None
    change(own, 0)
    average.update(unless=torch.tensor(True))
    assert same(average.state() or {}, before)
    average.update(unless=torch.tensor(False))
    assert not same(average.state() or {}, before)


def test_the_task_has_the_average_within_the_context_only() -> None:
    own = task()
    average = WeightAverage(own, 0.5)
    change(own, 0)
    average.update()
    weights = {name: p.detach().clone() for name, p in own.named_parameters()}
    addresses = [p.data_ptr() for p in own.parameters()]
    with average.in_task():
        inside = {name: p.detach().clone() for name, p in own.named_parameters()}
        assert same(inside, average.replaced(weights))
        assert not same(inside, weights)
    assert same({name: p.detach() for name, p in own.named_parameters()}, weights)
    assert [p.data_ptr() for p in own.parameters()] == addresses


def test_without_a_decay_nothing_happens() -> None:
    own = task()
    average = WeightAverage(own, None)
    average.update()
    average.load(None)
    with average.in_task():
        assert average.state() is None
    assert average.replaced({"a": torch.ones(1)}) == {"a": torch.ones(1)}


EMA = CONFIG.model_copy(update={"ema_decay": 0.5, "checkpoint_every_steps": 2})


@pytest.mark.parametrize("killed_at_save", [1, 2, 3])
def test_the_average_is_selected_stored_and_resumed_bit_for_bit(killed_at_save: int) -> None:
    whole_store, killed = Memory(), Memory(killed_at_save)
    whole, best, _ = run(whole_store, config=EMA)
    with pytest.raises(KeyboardInterrupt):
        run(killed, config=EMA)
    killed.kill_after = 10**9
    step = killed.states[-1]["step"]
    resumed, best_again, _ = run(killed, accuracies=[0.1, 0.2, 0.3][step // 3 :], config=EMA)
    assert best.weights is not None
    assert best_again.weights is not None
    assert same(best.weights, best_again.weights)
    assert same(whole.state_dict(), resumed.state_dict())
    last = whole_store.states[-1]
    assert same({name: best.weights[name] for name in last["average"]}, last["average"])
    assert not same({name: last["weights"][name] for name in last["average"]}, last["average"])
    assert all(torch.equal(best.weights[n], last["weights"][n]) for n in best.weights if "running_" in n)
    assert same(
        {name: p.detach() for name, p in whole.named_parameters() if p.requires_grad}, last["average"]
    )


def test_training_and_checkpoints_without_an_average_are_what_they_were() -> None:
    plain, averaged = Memory(), Memory()
    run(plain)
    run(averaged, config=CONFIG.model_copy(update={"ema_decay": 0.5}))
    assert "average" not in plain.states[-1]
    for a, b in zip(plain.states, averaged.states, strict=True):
        assert same(a["weights"], b["weights"])


def test_evaluation_sees_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    update = WeightAverage.in_task

    def recorded(self: WeightAverage) -> Any:
        seen.append(self.state() or {})
        return update(self)

    monkeypatch.setattr(WeightAverage, "in_task", recorded)
    store = Memory()
    run(store, config=EMA.model_copy(update={"checkpoint_every_steps": None}))
    assert [same(a, b["average"]) for a, b in zip(seen, store.states, strict=True)] == [True] * 3
