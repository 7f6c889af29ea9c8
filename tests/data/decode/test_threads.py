"""A pool of threads: in order, with every error, and never in the way of the end of its process."""

from __future__ import annotations

import os
import threading

import pytest

from fourds_dist.data.decode.threads import Pool, num_cores


def test_tasks_run_in_threads_that_have_begun() -> None:
    begun: list[str] = []
    pool = Pool(3, "reader", begin=lambda: begun.append(threading.current_thread().name))
    assert sorted(begun) == ["reader-0", "reader-1", "reader-2"]
    assert [future.result() for future in [pool.submit(pow, 2, n) for n in range(9)]] == [
        2**n for n in range(9)
    ]
    assert pool.submit(lambda: threading.current_thread().daemon).result()
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result()
    assert pool.submit(pow, 3, 2).result() == 9  # the thread survives an error
    pool.close()
    assert not {t.name for t in threading.enumerate()} & set(begun)


def test_a_closed_pool_cancels_what_has_not_begun() -> None:
    pool, running, may_end = Pool(1, "reader"), threading.Event(), threading.Event()

    def work() -> str:
        running.set()
        may_end.wait()
        return "done"

    first, second = pool.submit(work), pool.submit(pow, 2, 3)
    running.wait()
    pool.close(timeout_s=0)
    assert second.cancelled()
    assert pool.submit(pow, 2, 3).cancelled()
    may_end.set()
    assert first.result() == "done"
    pool.close()
    assert "reader-0" not in {thread.name for thread in threading.enumerate()}


def test_tasks_of_one_thread_run_in_the_order_of_submission() -> None:
    pool, done = Pool(1, "reader"), []
    futures = [pool.submit(done.append, n) for n in range(50)]
    futures[-1].result()
    assert done == list(range(50))
    pool.close()


def test_cores_are_those_of_this_process() -> None:
    allowed = os.sched_getaffinity(0)
    assert 0 < num_cores() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert 0 < num_cores() <= 1
    finally:
        os.sched_setaffinity(0, allowed)
