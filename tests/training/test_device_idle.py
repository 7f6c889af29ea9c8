"""Idle time of a device, with events on a clock of the test."""

from __future__ import annotations

import time

import pytest
import torch

from fourds_dist.training.device_idle import DeviceIdle


class At:
    """An event that the device reaches at a time given in milliseconds."""

    def __init__(self, times: list[float]) -> None:
        self._times = times
        self.at = float("nan")

    def record(self) -> None:
        self.at = self._times.pop(0)

    def elapsed_time(self, end_event: At, /) -> float:
        return end_event.at - self.at


def idle(times: list[float]) -> DeviceIdle:
    return DeviceIdle(lambda: At(times))  # pyright: ignore[reportArgumentType]


def test_waits_between_steps_and_between_intervals_count() -> None:
    measured = idle([10, 12, 20, 25, 30])  # ends and starts; the first start is not measured
    for _ in range(2):
        measured.step_starts()
        measured.step_ends()
    assert measured.take_s() == pytest.approx(0.002)
    measured.step_starts()
    measured.step_ends()
    assert measured.take_s() == pytest.approx(0.005)
    assert measured.take_s() == 0


def test_an_evaluation_between_steps_does_not_count() -> None:
    measured = idle([10, 5000])
    measured.step_starts()
    measured.step_ends()
    measured.restart()
    measured.step_starts()
    measured.step_ends()
    assert measured.take_s() == 0


@pytest.mark.gpu
def test_a_sleeping_host_and_a_device_that_is_behind() -> None:
    x = torch.randn(4096, 4096, device="cuda")
    slow_host, busy_device = DeviceIdle(), DeviceIdle()
    for _ in range(4):
        slow_host.step_starts()
        x.matmul(x)
        slow_host.step_ends()
        torch.cuda.synchronize()
        time.sleep(0.05)
    for _ in range(4):
        busy_device.step_starts()
        for _ in range(20):
            x.matmul(x)
        busy_device.step_ends()
    torch.cuda.synchronize()
    assert 0.15 < slow_host.take_s() < 1
    assert busy_device.take_s() < 0.05
