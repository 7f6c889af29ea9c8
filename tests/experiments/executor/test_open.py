"""The executor that a key `through` names, without Ray."""

from __future__ import annotations

import sys
from typing import NoReturn

import pytest

from fourds_dist.experiments.executor.in_process import InProcess
from fourds_dist.experiments.executor.open import check_imports, open_executor
from fourds_dist.experiments.executor.process_pool import ProcessPool
from fourds_dist.stages.launch_config import LaunchConfig
from fourds_dist.stages.settings import Settings

ON_CORES = Settings(launch=LaunchConfig(use_gpu=False, runner="inline"))


def test_here_is_this_process() -> None:
    with open_executor("here", ON_CORES, None) as executor:
        assert isinstance(executor, InProcess)
        assert executor.capacity == 1


def test_processes_are_as_many_as_are_asked_for_and_end_with_the_context() -> None:
    with open_executor("processes", ON_CORES, 3) as executor:
        assert isinstance(executor, ProcessPool)
        assert executor.capacity == 3
    refuse_runs(executor)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_the_context_reaches_the_caller_when_the_processes_have_ended(
    error: type[BaseException],
) -> None:
    opened: list[ProcessPool] = []

    def fail() -> NoReturn:
        with open_executor("processes", ON_CORES, 1) as executor:
            assert isinstance(executor, ProcessPool)
            opened.append(executor)
            raise error

    with pytest.raises(error):
        fail()
    refuse_runs(opened[0])


def refuse_runs(executor: ProcessPool) -> None:
    for process in executor._idle:
        with pytest.raises(RuntimeError, match="shutdown"):
            process.do("{}")


def test_without_ray_the_remedy_is_told_and_other_executors_need_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "fourds_dist.launch.ray.train", None)  # as where Ray is missing
    with pytest.raises(
        RuntimeError, match=r"^ray cannot be imported .*through=processes launch\.runner=inline$"
    ):
        check_imports("ray")
    check_imports("here")
    check_imports("processes")
