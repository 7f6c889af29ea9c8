"""Options and fixtures of the whole suite: `--slow`, GPU tests only with a GPU, one shared Ray."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from typing import Any

import hypothesis
import pytest
import torch

from fourds_dist.processes.leftovers import end_marked, mark, watch
from tests.finished_run import run_folder, workplace  # noqa: F401  (fixtures)
from tests.s3_server import no_credentials, s3_server  # noqa: F401  (fixtures)
from tests.typechecking import check_calls

check_calls()

# The time of a test depends on the load of the machine, not on the correctness of the code.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C; some send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

if (
    sys.dont_write_bytecode
):  # each of the hundreds of processes that the tests start would compile PyTorch again
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="fourds-bytecode-")
    sys.dont_write_bytecode = bool(os.environ.pop("PYTHONDONTWRITEBYTECODE", ""))
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)
# The networks of the tests are small: more threads are no faster, and far slower beside other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that the tests start
torch.set_num_threads(1)
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # before Ray is imported; see launch.ray.cluster
os.environ.setdefault("WANDB_MODE", "disabled")  # only the tests of tracking switch it on


SESSION = "FOURDS_TEST_SESSION"
"""Variable of the environment in everything that the tests start."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    if sys.platform == "linux":  # also what tests have started leaves when the session is killed
        value = mark(SESSION)
        watcher = watch(SESSION, value, grace_s=1)

        def end(session: int = os.getpid()) -> None:
            if os.getpid() == session:  # and no fork of it
                end_marked(SESSION, value)
                watcher.kill()
                watcher.wait()

        atexit.register(end)  # runs after what modules that come later register, as W&B's
    for marker in (
        "gpu: needs a CUDA device",
        "slow: takes more than a few seconds; left out unless --slow is given",
        "ray: starts the shared local Ray cluster",
    ):
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(optionalhook=True)  # a hook of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    from tests.schedule import GroupScheduling

    return GroupScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.hasplugin("xdist"):
        from tests.schedule import group_of, place

        items.sort(key=lambda item: place(group_of(item.nodeid, config.rootpath)))
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    not_asked = pytest.mark.skip(reason="slow; give --slow")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(not_asked)


def pytest_collection_finish() -> None:
    """Freeze the modules that the tests have imported: a collection of all objects then takes no longer than without
    PyTorch, and each stage of a run begins with one."""
    gc.collect()
    gc.freeze()


_shared_ray = ExitStack()
"""Ends the local Ray of the tests, if it runs."""


@pytest.fixture
def local_ray() -> None:
    """One local Ray for all tests that need it: starting it is what takes long."""
    import ray

    from fourds_dist.launch.ray.cluster import connected

    if not ray.is_initialized():
        _shared_ray.enter_context(connected(num_cpus=4))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End the shared Ray after the last test of it: Ray's own processes are busy even if nothing uses them."""
    if nextitem is None or nextitem.get_closest_marker("ray") is None:
        _shared_ray.close()
