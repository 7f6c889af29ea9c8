"""The order of work: teachers first, as many at once as there is room, failures told and not fatal."""

from __future__ import annotations

from pathlib import Path

from fourds_dist.compare.work import Ended, Job, jobs_of, work
from fourds_dist.settings import Settings
from fourds_dist.training.run_folder import RunConfig
from tests.compare.small import comparison


def job(name: str, needs: str | None = None) -> Job:
    return Job(name, Settings(run=RunConfig(name=name, dir="runs")), f"runs/{needs}" if needs else None)


class Place:
    """Ends runs in the order in which they began."""

    def __init__(self, room: int, failing: tuple[str, ...] = ()) -> None:
        self.room, self.failing = room, failing
        self.running: list[Job] = []
        self.most = 0
        self.order: list[str] = []

    def start(self, job: Job) -> None:
        self.running.append(job)
        self.order.append(job.title)
        self.most = max(self.most, len(self.running))

    def wait(self) -> Ended:
        done = self.running.pop(0)
        return Ended(done, "broken" if done.title in self.failing else None)


JOBS = [job("t1"), job("t2"), job("c1", "t1"), job("c2", "t1"), job("c3", "t2"), job("c4", "elsewhere")]


def test_teachers_come_before_their_cells() -> None:
    place, ended = Place(room=2), list[Ended]()
    work(JOBS, place, ended.append)
    assert sorted(place.order) == sorted(job.title for job in JOBS)
    assert place.most == 2
    for cell, teacher in (("c1", "t1"), ("c2", "t1"), ("c3", "t2")):
        titles = [end.job.title for end in ended]
        assert titles.index(teacher) < titles.index(cell)
    assert not any(end.failure for end in ended)


def test_a_failure_takes_with_it_what_needs_it_alone() -> None:
    place, ended = Place(room=3, failing=("t1", "c3")), list[Ended]()
    work(JOBS, place, ended.append)
    failed = {end.job.title: end.failure for end in ended if end.failure}
    assert failed == {
        "t1": "broken", "c1": "its teacher is not there", "c2": "its teacher is not there", "c3": "broken",
    }  # fmt: skip
    assert len(ended) == len(JOBS)


def test_done_is_what_the_folder_says(tmp_path: Path) -> None:
    made = Job("x", Settings(run=RunConfig(name="x", dir=str(tmp_path), until="source")))
    assert not made.is_done
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "source.json").write_text("{}")
    assert made.is_done


def test_one_seed_comes_before_the_next(tmp_path: Path) -> None:
    jobs = jobs_of(comparison(tmp_path, {"a": "shards/a", "b": "shards/b"}, seeds=[5, 3]))
    assert [job.settings.run.seed for job in jobs] == [5] * 8 + [3] * 8
    assert [job.needs is None for job in jobs] == 2 * ([True] * 2 + [False] * 6)
