"""The loop: resuming equals never stopping, the best epoch is stored, a loss that is not finite stops the run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.data import Batch
from fourds_dist.data.stream.batch import normalise
from fourds_dist.method import FourDs
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.events import (
    EpochEnded,
    Event,
    Note,
    StageEnded,
    StageStarted,
    StageStopped,
    StepLogged,
)
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.training.checkpoint.learning_state import learning_state
from fourds_dist.training.distributed.world import World
from fourds_dist.training.loop import LoopHooks, StageConfig, fit
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.stop_signals import Stopped, never
from fourds_dist.training.strategies.ddp import DDPStrategy
from fourds_dist.training.strategies.optim import OptimConfig
from fourds_dist.training.train_state import Best
from tests.training.tiny import tiny_four_ds

WORLD = World(0, 1, torch.device("cpu"))


class Stream:
    """Random images; a batch is a function of its step."""

    num_steps_per_epoch = 3
    wait_s = 0.0
    bad_samples: frozenset[str] = frozenset()
    gpu = None

    def batches(self, start_step: int) -> Iterator[Batch]:
        step = start_step
        while True:
            generator = torch.Generator().manual_seed(step)
            yield Batch(
                images=torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=generator),
                labels=torch.randint(0, 5, (4,), generator=generator),
                flip=torch.zeros(4, dtype=torch.bool),
                keys=[""] * 4,
            )
            step += 1


class Memory:
    """Checkpoints in memory; a kill is an exception after a number of saves."""

    def __init__(self, kill_after: int = 10**9) -> None:
        self.states: list[dict[str, Any]] = []
        self.kill_after = kill_after

    def save(
        self, state: dict[str, Any] | None, step: int, accuracies: dict[str, float], *, wait: bool = False
    ) -> None:
        del accuracies, wait
        assert state is not None
        assert state["step"] == step
        self.states.append(state)
        if len(self.states) >= self.kill_after:
            raise KeyboardInterrupt

    def newest(self) -> str | None:
        return str(len(self.states) - 1) if self.states else None

    def read(self, name: str) -> dict[str, Any]:
        return self.states[int(name)]

    def close(self) -> None:
        pass


def make_task(*, student_untrained: bool = False) -> FourDs:
    torch.manual_seed(0)
    return tiny_four_ds(student_untrained=student_untrained)


CONFIG = StageConfig(epochs=3, global_batch_size=4, optim=OptimConfig(schedule="cosine"))


def run(
    store: Memory,
    accuracies: list[float] | None = None,
    *,
    stream: Stream | None = None,
    stop: Any = never,
    written: dict[str, Any] | None = None,
    events: list[Event] | None = None,
    task: FourDs | None = None,
    **changes: Any,
) -> tuple[FourDs, Best, list[Event]]:
    task, events = task or make_task(), [] if events is None else events
    options: dict[str, Any] = {
        "config": CONFIG,
        "monitored": "student",
        "identity": {"data": "a"},
        "world": WORLD,
        "log_every_steps": 2,
    } | changes
    strategy = DDPStrategy(WORLD, options["config"].optim, options["config"].epochs * 3)
    step = TrainStep(task, WORLD, StepConfig(), mean=(0.5,) * 3, std=(0.25,) * 3, strategy=strategy)
    values = iter(accuracies or [0.1, 0.2, 0.3])

    def validate() -> dict[str, Accuracy]:
        return {
            "student": Accuracy(round(1000 * next(values)), 1000, 1.0),
            "teacher_adapted": Accuracy(1, 1, 1.0),
        }

    write = {} if written is None else written
    hooks = LoopHooks(store, events.append, stop, write.__setitem__)
    best = fit(task, step, strategy, stream or Stream(), validate, hooks, **options)  # pyright: ignore[reportArgumentType]
    return task, best, events


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("kill_after", [1, 2])
def test_resuming_is_bit_identical_to_never_stopping(kill_after: int) -> None:
    whole, best, _ = run(Memory())
    killed = Memory(kill_after)
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    killed.kill_after = 10**9
    resumed, best_again, events = run(killed, accuracies=[0.1, 0.2, 0.3][kill_after:])
    assert events[0].step == 3 * kill_after
    assert isinstance(events[1], Note)
    assert events[1].text == f"resumed from the checkpoint of step {3 * kill_after}"
    assert same(learning_state(whole), learning_state(resumed))
    assert (best.accuracy, best.step) == (best_again.accuracy, best_again.step)


def test_the_best_epoch_s_weights_come_back() -> None:
    store = Memory()
    task, best, events = run(store, accuracies=[0.1, 0.5, 0.3])
    assert (best.epoch, best.accuracy) == (2, 0.5)
    assert same(learning_state(task), store.states[1]["weights"])
    assert [event.is_best for event in events if isinstance(event, EpochEnded)] == [True, True, False]


def test_another_data_set_s_checkpoint_is_refused() -> None:
    store = Memory()
    run(store)
    with pytest.raises(ValueError, match=r"another data \('a', now 'b'\)"):
        run(store, identity={"data": "b"})


def test_events_hold_what_people_watch() -> None:
    _, _, events = run(Memory())
    epoch = [StepLogged, StepLogged, EpochEnded]
    assert [type(event) for event in events] == [StageStarted, *epoch, *epoch, *epoch, StageEnded]
    step = next(event for event in events if isinstance(event, StepLogged))
    assert {"student_ce", "student_kd", "teacher_ce", "teacher_kd", "phase"} <= set(step.losses)
    assert {"student", "adapters"} <= set(step.learning_rates)
    assert "mix/adapter2" in step.method_values
    assert step.images_per_s > 0
    assert step.shares.data_wait == 0


@pytest.mark.parametrize("killed_at_save", [1, 2, 4])
def test_resuming_within_an_epoch_is_bit_identical_too(killed_at_save: int) -> None:
    """Saved at steps 2, 3 (epoch), 4, 6 (epoch and period), 8, 9."""
    config = CONFIG.model_copy(update={"checkpoint_every_steps": 2})
    whole, best, _ = run(Memory(), config=CONFIG)  # how often is saved changes nothing
    killed = Memory(killed_at_save)
    with pytest.raises(KeyboardInterrupt):
        run(killed, config=config)
    killed.kill_after = 10**9
    step = killed.states[-1]["step"]
    assert step == [2, 3, 4, 6][killed_at_save - 1]
    resumed, best_again, events = run(killed, accuracies=[0.1, 0.2, 0.3][step // 3 :], config=config)
    assert events[0].step == step
    assert same(learning_state(whole), learning_state(resumed))
    assert (best.accuracy, best.step) == (best_again.accuracy, best_again.step)


def test_a_checkpoint_does_not_change_while_training_continues() -> None:
    """It is written by a thread meanwhile."""
    store = Memory()
    run(store)
    again = Memory(kill_after=1)
    with pytest.raises(KeyboardInterrupt):
        run(again)
    first, held = again.states[0], store.states[0]
    assert same(first["weights"], held["weights"])
    for name, state in first["optimizer"].items():
        assert same(state, held["optimizer"][name])


def test_a_stop_request_writes_a_checkpoint_of_the_current_step() -> None:
    whole, _, _ = run(Memory())
    store, events = Memory(), []
    reason = StopReason(StopKind.SIGTERM)
    asked = iter([None, None, None, reason])  # logged at steps 2, 3, 4, 6
    with pytest.raises(Stopped, match="stopped by SIGTERM at step 6"):
        run(store, stop=lambda run_s: next(asked), events=events)
    assert events[-1] == StageStopped(step=6, reason=reason)
    assert store.states[-1]["step"] == 6
    asked = iter([None, None, StopReason(StopKind.PREEMPTED)])  # at 2, 3 and 4, in the middle of an epoch
    store = Memory()
    with pytest.raises(Stopped, match="at step 4"):
        run(store, stop=lambda run_s: next(asked))
    assert store.states[-1]["step"] == 4
    resumed, _, _ = run(store, accuracies=[0.2, 0.3])
    assert same(learning_state(whole), learning_state(resumed))


class Poisoned(Stream):
    """The images of some steps break the forward pass: their labels select what is not a number."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def batches(self, start_step: int) -> Iterator[Batch]:
        for step, batch in enumerate(super().batches(start_step), start_step + 1):
            keys = [f"shard/{step}-{i}" for i in range(4)]
            flip = torch.full((4,), step in self.steps)
            yield replace(batch, keys=keys, flip=flip)


class TestNotFinite:
    """Step 5 is bad; events come at steps 2, 3, 4, 6, 8, 9."""

    @pytest.fixture(autouse=True)
    def flips_poison(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Normalisation that turns mirrored images into NaN, as an operator with a gap would."""

        def poisoned(images: Tensor, flip: Tensor, **options: Any) -> Tensor:
            clean = normalise(images, torch.zeros_like(flip), **options)
            return torch.where(flip[:, None, None, None], float("nan"), clean)

        monkeypatch.setattr("fourds_dist.training.step.normalise", poisoned)

    def test_it_stops_before_the_next_checkpoint_and_names_the_images(self) -> None:
        written: dict[str, Any] = {}
        store = Memory()
        with pytest.raises(
            FloatingPointError, match=r"not finite at step 5; .*nonfinite_batch-00000005.json.*optim.lr"
        ):
            run(store, stream=Poisoned(5), written=written)
        assert [state["step"] for state in store.states] == [3]
        told = written["nonfinite_batch-00000005.json"]
        assert told["first_bad_step"] == 5
        assert told["keys_by_step_and_rank"]["5"] == [["shard/5-0", "shard/5-1", "shard/5-2", "shard/5-3"]]
        assert list(told["keys_by_step_and_rank"]) == ["4", "5"]

    def test_within_a_budget_it_skips(self) -> None:
        store, written = Memory(), {}
        task, _, events = run(store, stream=Poisoned(5, 7), written=written, max_nonfinite_steps=2)
        notes = [event for event in events if isinstance(event, Note)]
        assert [note.step for note in notes] == [6, 8]
        assert "skipped 1 step from step 5 on" in notes[0].text
        assert "(2 of step.max_nonfinite_steps=2)" in notes[1].text
        assert all(torch.isfinite(x).all() for x in learning_state(task).values())
        assert all(math.isfinite(event.loss) for event in events if isinstance(event, StepLogged))
        assert store.states[-1]["num_skipped"] == 2

    def test_a_skipped_step_leaves_everything_as_it_was(self) -> None:
        """All but the number of the step, on which rates depend, and the counters of batches."""
        config = CONFIG.model_copy(update={"checkpoint_every_steps": 1})
        store = Memory()
        run(store, stream=Poisoned(5), config=config, max_nonfinite_steps=1)
        before, after = store.states[3], store.states[4]
        assert (before["step"], after["step"]) == (4, 5)
        for name in (n for n in before["weights"] if not n.endswith("num_batches_tracked")):
            assert torch.equal(before["weights"][name], after["weights"][name]), name
        for name, state in before["optimizer"].items():
            assert same(state, after["optimizer"][name])

    def test_a_skipped_step_leaves_what_the_epoch_before_it_taught(self) -> None:
        """The ratio of an untrained student, which is a buffer and changes between two steps."""
        task, store = make_task(student_untrained=True), Memory()
        run(store, accuracies=[0.9, 0.1, 0.1], task=task, stream=Poisoned(4), max_nonfinite_steps=1)
        standings = [state["weights"]["student_ratio"].item() for state in store.states]
        assert standings[0] > 0
        assert standings == [standings[0]] * 3

    def test_a_spent_budget_stops_it_also_across_a_resume(self) -> None:
        store = Memory(kill_after=2)  # after the epoch that skipped step 5
        with pytest.raises(KeyboardInterrupt):
            run(store, stream=Poisoned(5, 7), max_nonfinite_steps=1)
        store.kill_after = 10**9
        with pytest.raises(
            FloatingPointError, match=r"2 of step.max_nonfinite_steps=1.*more than allowed.*another run.name"
        ):
            run(store, accuracies=[0.3], stream=Poisoned(5, 7), max_nonfinite_steps=1)


def test_no_checkpoint_holds_weights_that_are_not_finite() -> None:
    """The loss of step 3, at which an epoch ends, is finite; its gradient is not."""
    task, count = make_task(), itertools.count(1)
    parameter = next(task.student.parameters())
    parameter.register_hook(lambda grad: grad * float("nan") if next(count) == 3 else grad)
    store, written = Memory(), {}
    with pytest.raises(
        FloatingPointError, match=r"step 3 left weights that are not finite, and no checkpoint"
    ):
        run(store, task=task, stream=Poisoned(), written=written)
    assert store.states == []
    keys = written["nonfinite_batch-00000003.json"]["keys_by_step_and_rank"]
    assert keys["3"] == [[f"shard/3-{i}" for i in range(4)]]


def test_a_step_that_the_strategy_leaves_out_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As DeepSpeed does; see test_strategy."""
    count, written, store = itertools.count(1), {}, Memory()
    monkeypatch.setattr(DDPStrategy, "step", lambda self, *, unless=None: next(count) == 5)
    with pytest.raises(
        FloatingPointError, match=r"gradients of step 5 are not finite; .*nonfinite_batch-00000005"
    ):
        run(store, stream=Poisoned(), written=written)
    assert [state["step"] for state in store.states] == [3]
    assert "5" in written["nonfinite_batch-00000005.json"]["keys_by_step_and_rank"]


def test_a_learning_rate_that_explodes_stops_the_run() -> None:
    config = StageConfig(epochs=3, global_batch_size=4, optim=OptimConfig(lr=1e9, schedule="constant"))
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+"):
        run(Memory(), config=config)


def test_accumulated_gradients_equal_those_of_the_whole_batch() -> None:
    """Without BatchNorm, whose statistics are those of a micro-batch."""
    grads = []
    for parts in (1, 4):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        from fourds_dist.method import SourceClassifiers

        task = SourceClassifiers({"teacher": network}).double()
        step = TrainStep(
            task, WORLD, StepConfig(gradient_accumulation_steps=parts), mean=(0.5,) * 3, std=(0.25,) * 3
        )
        task.float()
        step(next(Stream().batches(0)))
        grads.append([p.grad for p in task.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
