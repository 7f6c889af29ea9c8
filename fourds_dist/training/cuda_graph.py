"""A CUDA graph of one training step, captured once and replayed, so that the device never waits for Python.

A graph knows addresses alone. What it shares with the program around it therefore stays where it was captured:

    inputs      every replay copies the batch into the tensors that the graph reads
    gradients   the graph writes them anew; a replay hands them back to the parameters, which a step outside of the
                graph (another batch size) has given others
    output      lies in the graph's memory and is overwritten by the next replay
    buffers, random state   are as they were: what the warm-up left there is taken back

With several ranks the graph holds the collectives of the step too (`gradient_buckets`), so all ranks capture together
and replay together. The optimisers are no part of it. Their fused kernels take the learning rate as a number that
changes every step, and the Python around them runs while the device still works on the graph.
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
"""Of a process that waited too long for the others; the group starts again from its newest checkpoint."""


class CaptureError(RuntimeError):
    """The step does what a graph cannot hold, such as waiting for the device."""


class CudaGraphStep:
    """One captured step.

    Args:
        run: takes `inputs`, leaves gradients in `module` and returns the output.
        module: whose gradients and buffers the step writes.
        inputs: an example, on the host or the device; every replay takes tensors of the same shapes.
        beside: another captured step in whose memory this one may work; no two of them may run at the same time.

    Raises:
        CaptureError: the step cannot be captured; `module` is as it was, and steps without a graph still run.
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
                # "thread_local": the loader's threads go on page-locking memory meanwhile.
                with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                    self._output = run(*self._inputs)
            except RuntimeError as error:
                module.zero_grad(set_to_none=True)
                # PyTorch leaves both in the state of a capture: random numbers and frees would fail from here on.
                generator.graphsafe_set_state(state)
                with suppress(RuntimeError):
                    torch._C._cuda_endAllocateToPool(device.index, pool)  # pyright: ignore
                raise CaptureError(_first_line(error)) from None
        self._gradients = [(p, p.grad) for p in module.parameters() if p.grad is not None]

    def replay(self, *inputs: Tensor) -> Any:
        """Run the step on `inputs`; nothing here waits for the device."""
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._output


@contextmanager
def no_trace(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Steps inside leave buffers and the device's random state as they were; their last gradients stay."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    random_state = torch.cuda.get_rng_state(device)
    try:
        yield
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
        torch.cuda.set_rng_state(random_state, device)


def why_not_captured(run: Callable[[], Any], module: nn.Module) -> str | None:
    """Which submodule waits for the device in a step, and by what; None where no wait is found.

    Runs the step twice: what it makes once (constants, kernels) may wait.
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
        warnings.simplefilter("ignore")  # that it does not find all waits
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
    """Ends this process where a replayed step waits for other ranks longer than `timeout_s` seconds.

    NCCL's watchdog knows only collectives that were called; those inside a graph would wait for a lost rank for ever.
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
        """Watch the work queued on the current stream until now."""
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
                "this worker ends, and the run goes on from its newest checkpoint",
                file=sys.stderr,
                flush=True,
            )
            os._exit(HANG_EXIT_CODE)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
