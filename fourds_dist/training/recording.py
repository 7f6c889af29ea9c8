"""A CUDA graph of one training step, recorded once and replayed, so that the device never waits for Python.

A graph knows addresses alone. What it shares with the program around it therefore stays where it was recorded:

    inputs      every replay copies the batch into the tensors that the graph reads
    gradients   the graph writes them anew; a replay hands them back to the parameters, which a step outside of the
                graph (another batch size) has given others
    output      lies in the graph's memory and is overwritten by the next replay
    buffers, random state   are as they were: what the warm-up left there is taken back

The optimisers are no part of it. Their fused kernels take the learning rate as a number that changes every step, and
the Python around them runs while the device still works on the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP_STEPS = 3


class Recording:
    """One recorded step.

    Args:
        run: takes `inputs`, leaves gradients in `module` and returns the output.
        module: whose gradients and buffers the step writes.
        inputs: an example, on the host or the device; every replay takes tensors of the same shapes.
        beside: another recording in whose memory this one may work; no two of them may run at the same time.

    Raises:
        RuntimeError: the step does what a graph cannot hold, such as waiting for the device.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        *,
        device: torch.device,
        beside: Recording | None = None,
    ) -> None:
        self._inputs = tuple(x.to(device, copy=True) for x in inputs)
        buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
        random_state = torch.cuda.get_rng_state(device)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                run(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(stream)
        module.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        try:
            pool = beside and beside._graph.pool()
            # "thread_local": the loader's threads go on page-locking memory meanwhile.
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._output = run(*self._inputs)
        except RuntimeError as error:
            raise RuntimeError(
                f"this step cannot be recorded as a CUDA graph; set step.cuda_graph=false ({error})"
            ) from error
        self._gradients = [(p, p.grad) for p in module.parameters() if p.grad is not None]
        for buffer, before in buffers:
            buffer.copy_(before)
        torch.cuda.set_rng_state(random_state, device)

    def replay(self, *inputs: Tensor) -> Any:
        """Run the step on `inputs`; nothing here waits for the device."""
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._output
