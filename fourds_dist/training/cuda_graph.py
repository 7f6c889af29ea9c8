"""A CUDA graph of one training step, captured once and replayed, so that the device does not wait for Python.

A graph has fixed addresses, so tensors that it shares with the program stay at the addresses of the capture:

    inputs      every replay copies the batch into the tensors that the graph reads
    gradients   the graph overwrites them; a replay assigns them to the parameters, which have other gradient tensors
                after a step outside the graph (another batch size)
    output      is in the graph's memory; the next replay overwrites it
    buffers, random state   are restored after the warm-up

With several ranks the graph includes the collectives of the step (`gradient_buckets`), so all ranks capture and replay
together. The graph excludes the optimisers: their fused kernels take the learning rate, which changes every step, as a
number, and their Python code runs while the device computes the graph.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP_STEPS = 3
HANG_EXIT_CODE = 75
"""Exit code of a process that waited too long for other ranks; the group restarts from its newest checkpoint."""


class CaptureError(RuntimeError):
    """The step has an operation that a graph does not support, such as a wait for the device."""


class CudaGraphStep:
    """One captured step.

    Args:
        run: takes `inputs`, writes gradients to `module` and returns the output.
        module: module whose gradients and buffers the step writes.
        inputs: example inputs, on the host or the device; every replay takes tensors of the same shapes.
        beside: another captured step with which this one shares memory; the two must not run at the same time.

    Raises:
        CaptureError: the step cannot be captured; `module` is unchanged, and steps without a graph still run.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        *,
        device: torch.device,
        beside: CudaGraphStep | None = None,
    ) -> None:
        if device.index is None:
            device = torch.device(device.type, torch.cuda.current_device())
        self._inputs = tuple(x.to(device, copy=True) for x in inputs)
        with no_trace(module, device):
            stream = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_STEPS):
                    run(*self._inputs)
            torch.cuda.current_stream(device).wait_stream(stream)
            module.zero_grad(set_to_none=True)
            self._graph = torch.cuda.CUDAGraph()
            pool = beside._graph.pool() if beside else torch.cuda.graph_pool_handle()
            generator = torch.cuda.default_generators[device.index]
            state = generator.clone_state()
            try:
                # "thread_local": the loader's threads page-lock memory during the capture.
                with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                    self._output = run(*self._inputs)
            except RuntimeError as error:
                module.zero_grad(set_to_none=True)
                # PyTorch leaves both in the capturing state, in which random numbers and frees fail.
                generator.graphsafe_set_state(state)
                with suppress(RuntimeError):
                    torch._C._cuda_endAllocateToPool(device.index, pool)  # pyright: ignore
                raise CaptureError(_first_line(error)) from None
        self._gradients = [(p, p.grad.detach()) for p in module.parameters() if p.grad is not None]

    def replay(self, *inputs: Tensor) -> Any:
        """Run the step on `inputs`, without a wait for the device."""
        for captured, given in zip(self._inputs, inputs, strict=True):
            captured.copy_(given, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient.detach()  # DeepSpeed moves a `grad` to other memory
        return self._output


@contextmanager
def no_trace(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore the buffers and the device's random state after the steps in this context; gradients stay."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    random_state = torch.cuda.get_rng_state(device)
    try:
        yield
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
        torch.cuda.set_rng_state(random_state, device)


def why_not_captured(run: Callable[[], Any], module: nn.Module) -> str | None:
    """Return the submodule that waits for the device in a step, and the operation; None if there is none.

    This runs the step twice, as the first run may wait when it creates constants and kernels.
    """
    run()
    names = {m: name for name, m in module.named_modules()}
    entered: list[str] = []

    def enter(m: nn.Module, _: Any) -> None:
        entered.append(f"{names.get(m, '')} ({type(m).__name__})")

    def leave(m: nn.Module, _: Any, __: Any) -> None:
        del m
        entered.pop()

    hooks = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter),
        torch.nn.modules.module.register_module_forward_hook(leave),
    ]
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the debug mode warns that it does not find all waits
        torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        return f"{entered[-1] if entered else 'the step'}: {_first_line(error)}"
    finally:
        torch.cuda.set_sync_debug_mode(before)
        for hook in hooks:
            hook.remove()
    return None


class HangWatch:
    """Exit this process if a replayed step waits for other ranks longer than `timeout_s` seconds.

    NCCL's watchdog covers only collectives outside graphs; those in a graph would wait forever for a lost rank.
    """

    def __init__(self, timeout_s: float) -> None:
        self._queued: deque[tuple[float, torch.cuda.Event]] = deque()
        done = threading.Event()
        weakref.finalize(self, done.set)
        thread = threading.Thread(
            target=_watch, args=(self._queued, timeout_s, done), name="hang-watch", daemon=True
        )
        thread.start()

    def add(self) -> None:
        """Watch the work that is queued on the current stream."""
        event = torch.cuda.Event()
        event.record()
        self._queued.append((time.monotonic(), event))


def _watch(queued: deque[tuple[float, torch.cuda.Event]], timeout_s: float, done: threading.Event) -> None:
    finished_at = time.monotonic()
    while not done.wait(min(1.0, timeout_s / 10)):
        while queued and queued[0][1].query():
            queued.popleft()
            finished_at = time.monotonic()
        if queued and time.monotonic() - max(queued[0][0], finished_at) > timeout_s:
            print(
                f"a step waited for the other workers longer than launch.collective_timeout_s={timeout_s:g}; "
                "this worker exits, and the run resumes from its newest checkpoint",
                file=sys.stderr,
                flush=True,
            )
            os._exit(HANG_EXIT_CODE)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
