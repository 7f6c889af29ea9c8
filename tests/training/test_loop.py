"""The loop: resuming equals never stopping, the best epoch is kept, a loss that is not finite stops the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.data import Batch
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.training.checkpoint import learning_state
from fourds_dist.training.evaluate import Accuracy
from fourds_dist.training.loop import Best, StageConfig, fit
from fourds_dist.training.optim import OptimConfig
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.world import World

WORLD = World(0, 1, torch.device("cpu"))
STAGES = ("layer1", "layer2", "layer3", "layer4")


class Stream:
    """Random images; a batch is a function of its step."""

    num_steps_per_epoch = 3
    wait_s = 0.0
    num_bad_samples = 0

    def batches(self, start_step: int) -> Iterator[Batch]:
        step = start_step
        while True:
            generator = torch.Generator().manual_seed(step)
            yield Batch(
                images=torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator),
                labels=torch.randint(0, 5, (4,), generator=generator),
                flip=torch.zeros(4, dtype=torch.bool),
                from_source=torch.zeros(4, dtype=torch.bool),
                keys=[""] * 4,
            )
            step += 1


class Memory:
    """Checkpoints in memory; a kill is an exception after a number of saves."""

    def __init__(self, kill_after: int = 10**9) -> None:
        self.states: list[dict[str, Any]] = []
        self.kill_after = kill_after

    def save(self, state: dict[str, Any] | None, step: int, metrics: dict[str, float]) -> None:
        del step, metrics
        assert state is not None
        self.states.append(state)
        if len(self.states) >= self.kill_after:
            raise KeyboardInterrupt

    def load(self) -> dict[str, Any] | None:
        return self.states[-1] if self.states else None


def make_task() -> FourDs:
    torch.manual_seed(0)
    small = BackboneConfig(arch="resnet10", stem="small")
    task = FourDs(
        build_backbone(small, 5),
        build_backbone(small, 5),
        teacher_stages=STAGES,
        student_stages=STAGES,
        config=MethodConfig(),
        image_size=32,
    )
    task.student.fc = nn.Sequential(nn.Dropout(0.5), task.student.fc)  # pyright: ignore  (random state matters)
    return task


def run(
    store: Memory, accuracies: list[float] | None = None, **changes: Any
) -> tuple[FourDs, Best, list[dict[str, Any]]]:
    task, rows = make_task(), []
    step = TrainStep(task, WORLD, StepConfig(), mean=(0.5,) * 3, std=(0.25,) * 3)
    values = iter(accuracies or [0.1, 0.2, 0.3])

    def validate() -> dict[str, Accuracy]:
        return {"student": Accuracy(round(1000 * next(values)), 1000, 1.0)}

    options: dict[str, Any] = {
        "config": StageConfig(epochs=3, global_batch_size=4, optim=OptimConfig(schedule="cosine")),
        "selected": "student",
        "identity": {"data": "a"},
        "store": store,
        "emit": rows.append,
        "world": WORLD,
        "log_every_steps": 2,
    } | changes
    best = fit(task, step, Stream(), validate, **options)  # pyright: ignore[reportArgumentType]
    return task, best, rows


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("kill_after", [1, 2])
def test_resuming_is_bit_identical_to_never_stopping(kill_after: int) -> None:
    whole, best, _ = run(Memory())
    killed = Memory(kill_after)
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    killed.kill_after = 10**9
    resumed, best_again, rows = run(killed, accuracies=[0.1, 0.2, 0.3][kill_after:])
    assert rows[0]["step"] == 3 * kill_after
    assert same(learning_state(whole), learning_state(resumed))
    assert (best.accuracy, best.step) == (best_again.accuracy, best_again.step)


def test_the_best_epoch_s_weights_come_back() -> None:
    store = Memory()
    task, best, rows = run(store, accuracies=[0.1, 0.5, 0.3])
    assert (best.epoch, best.accuracy) == (2, 0.5)
    assert same(learning_state(task), store.states[1]["task"])
    assert [row["is_best"] for row in rows if row["event"] == "epoch"] == [True, True, False]


def test_another_data_set_s_checkpoint_is_refused() -> None:
    store = Memory()
    run(store)
    with pytest.raises(ValueError, match=r"another data \('a', now 'b'\)"):
        run(store, identity={"data": "b"})


def test_rows_hold_what_people_watch() -> None:
    _, _, rows = run(Memory())
    assert [row["event"] for row in rows] == ["start", *["step", "step", "epoch"], *["step", "step", "epoch"], *["step", "step", "epoch"], "end"][: len(rows)]  # fmt: skip
    step = next(row for row in rows if row["event"] == "step")
    wanted = {
        "student_ce",
        "student_kd",
        "teacher_ce",
        "teacher_kd",
        "phase",
        "lr/student",
        "lr/adapters",
        "mix/adapter4",
    }
    assert wanted <= set(step)
    assert {"images_per_s", "data_wait_share"} <= set(step)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    config = StageConfig(epochs=3, global_batch_size=4, optim=OptimConfig(lr=1e9, schedule="constant"))
    with pytest.raises(FloatingPointError, match=r"not finite by step \d+; lower optim.lr"):
        run(Memory(), config=config)


def test_accumulated_parts_give_the_whole_batch_s_gradients() -> None:
    """Without BatchNorm, whose statistics belong to a part."""
    grads = []
    for parts in (1, 4):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        from fourds_dist.method import SourceClassifiers

        task = SourceClassifiers({"teacher": network}).double()
        step = TrainStep(task, WORLD, StepConfig(accumulation=parts), mean=(0.5,) * 3, std=(0.25,) * 3)
        task.float()
        step(next(Stream().batches(0)))
        grads.append([p.grad for p in task.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
