"""What trainings take, from the events of finished ones."""

from __future__ import annotations

import pytest

from fourds_dist.config.stage_names import StageName
from fourds_dist.experiments.advise.costs import UNKNOWN, Costs
from fourds_dist.experiments.advise.lengths import Length
from fourds_dist.runs.events import EpochEnded, Event, StageStarted, StepLogged, TimeShares
from fourds_dist.stages.settings import Settings


def events(stage: str, *, images_per_s: float, validation_s: float, epochs: int = 2) -> list[Event]:
    """Epochs of 10 steps of 32 images."""
    found: list[Event] = [
        StageStarted(
            step=0,
            stage=stage,
            time=100.0,
            num_epochs=epochs,
            num_steps_per_epoch=10,
            global_batch_size=32,
            num_workers=1,
            device="CPU",
        )
    ]
    now_s = 100.0
    for epoch in range(1, epochs + 1):
        now_s += 320 / images_per_s
        common = {"step": 10 * epoch, "stage": stage, "loss": 1.0, "images_per_s": images_per_s}
        shares = TimeShares(data_wait=0.0)
        found.append(StepLogged(time=now_s, epoch=float(epoch), losses={}, shares=shares, **common))
        now_s += validation_s
        found.append(
            EpochEnded(
                time=now_s, epoch=epoch, validation={}, num_evaluated=5, is_best=True, left_s=0.0, **common
            )
        )
    return found


def test_the_cost_of_a_measured_method() -> None:
    costs = Costs(overhead_s=2.0)
    spans_s = costs.learn("a", events("distill", images_per_s=160, validation_s=3), Settings())
    assert spans_s == pytest.approx(2 * (2 + 3))
    assert costs.seconds("a", {"distill": Length(4, 1600, 1.0)}) == pytest.approx(2 + 4 * (10 + 3))
    assert costs.training_s("a", {"distill": Length(1, 160, 1.0)}) == pytest.approx(1 + 3)


def test_the_cost_of_others_is_that_of_the_slowest() -> None:
    costs = Costs()
    costs.learn("a", events("distill", images_per_s=160, validation_s=0), Settings())
    costs.learn("b", events("distill", images_per_s=80, validation_s=0), Settings())
    one: dict[StageName, Length] = {"distill": Length(1, 160, 1.0)}
    assert [costs.seconds(name, one) for name in ("a", "b", "c")] == pytest.approx([1, 2, 2])
    assert costs.seconds("a", {"adapt": Length(1, 160, 1.0)}) == pytest.approx(UNKNOWN * 2)
    assert Costs().seconds("a", one) == 0


def test_a_resumed_stage_counts_the_time_since_its_last_start() -> None:
    before = events("distill", images_per_s=160, validation_s=3, epochs=1)
    after = events("distill", images_per_s=160, validation_s=3)
    started = StageStarted(
        step=10,
        stage="distill",
        time=1000.0,
        num_epochs=2,
        num_steps_per_epoch=10,
        global_batch_size=32,
        num_workers=1,
        device="CPU",
    )
    shift = 1000.0 - before[-1].time
    late = [_later(event, shift) for event in after[3:]]
    costs = Costs()
    costs.learn("a", [*before, started, *late], Settings())
    assert costs.training_s("a", {"distill": Length(1, 160, 1.0)}) == pytest.approx(1 + 3)


def _later(event: Event, seconds: float) -> Event:
    from dataclasses import replace

    return replace(event, time=event.time + seconds)
