"""One training step: batch to the device, forward under autocast, backward. The same for all stages.

On a GPU the time goes where it is least seen: at small batches the device waits for Python, which `cuda_graph` cures by
replaying one captured step, on every rank; at large ones for memory traffic, which `compile` and bfloat16 reduce.
`python -m fourds_dist.benchmark step` times it, `... numerics` compares its fast form with plain float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fourds_dist.config import Section
from fourds_dist.data.batch import Batch, normalise
from fourds_dist.effects import COURSE, LOG, NUMERICS, SPEED, WEIGHTS
from fourds_dist.method.lean import hold_frozen_in, keep_less
from fourds_dist.method.output import Output
from fourds_dist.method.recompute import recompute_blocks
from fourds_dist.training.cuda_graph import CaptureError, CudaGraphStep, HangWatch, no_trace, why_not_captured
from fourds_dist.training.strategy import Gradients, Strategy
from fourds_dist.training.world import World

MAX_GRAPHS = 2  # whole batches, and the odd one at the end of an epoch


class StepConfig(Section):
    """How a step computes."""

    precision: Annotated[Literal["auto", "float32", "bfloat16"], WEIGHTS] = "auto"
    """`bfloat16`: networks under autocast, Fourier transforms and losses in float32. `auto`: bfloat16 on GPUs, float32
    on CPUs."""

    channels_last: Annotated[bool, NUMERICS] = True
    """Keep images and convolution weights in channels-last memory format on GPUs (under DeepSpeed images alone)."""

    lean: Annotated[bool, NUMERICS] = True
    """On GPUs, pooling, ReLUs and frozen convolutions keep only what their gradients need: a fourth less memory, and
    faster; the same results."""

    activation_checkpointing: Annotated[bool, NUMERICS] = False
    """Let residual blocks, transformer layers and adapters run again in the backward pass instead of keeping what they
    computed: the same results in more time and less memory. Without compile."""

    compile: Annotated[bool, NUMERICS] = False
    """Compile the task with torch.compile: about a minute at the start, some percent faster on GPUs."""

    cuda_graph: Annotated[bool | None, NUMERICS] = None
    """Capture the step once, its all-reduces included, and replay it on every worker, so that the GPU never waits for
    Python; null: on GPUs with launch.strategy=ddp. true also captures launch.deepspeed=zero1. A step that cannot be
    captured runs without a graph, which the log says."""

    overlap_networks: Annotated[bool, SPEED] = True
    """Captured steps: run teacher and student at the same time, on two CUDA streams. The same results, faster; most so
    with small batches."""

    tune_convolutions: Annotated[bool, NUMERICS] = True
    """Let cuDNN try its algorithms on every new shape, some seconds at the start, and keep the fastest."""

    batch_norm: Annotated[Literal["averaged", "synchronised"], WEIGHTS] = "averaged"
    """Several workers: `averaged` normalises by each worker's batch and averages the running statistics before
    evaluation and saving; `synchronised` normalises by the global batch (GPUs only)."""

    accumulation: Annotated[int, NUMERICS] = Field(default=1, ge=1, le=65536)
    """Cut each worker's share of the batch into this many parts, one after another, to save memory."""

    eval_batch_size_per_rank: Annotated[int, NUMERICS] = Field(default=256, ge=1, le=65536)
    """Images per forward pass of evaluation, in each worker."""

    log_every_steps: Annotated[int, LOG] = Field(default=10, ge=1)
    """Steps between two lines of metrics; only these steps wait for the device, and only at them does a run notice that
    it is to stop."""

    max_bad_steps: Annotated[int, COURSE] = Field(default=0, ge=0)
    """Steps with gradients that are not finite which a run may leave out; 0: the first loss that is not finite stops
    it. Weights that are not finite always do. Their images are named in bad_batch-*.json."""

    @model_validator(mode="after")
    def _check(self) -> StepConfig:
        if self.activation_checkpointing and self.compile:
            raise ValueError("compile does not go with activation_checkpointing; leave one of them out")
        return self


class TrainStep:
    """Calls the task on a batch and leaves the batch's gradients in its parameters.

    Args:
        task: the module that turns (images, labels) into an `Output`, on the world's device.
        mean, std: of the normalised images, per channel, in [0, 1] units.
        global_batch_size: images of all ranks together; the gradient is then the mean over them also where ranks hold
            unequal shares. None: every rank holds as many.
        strategy: wraps the task and takes its backward passes; None: gradients are summed over the world's ranks, and
            nothing takes a step.

    Raises:
        ValueError: a CUDA graph asked for where there is none: on CPUs or under stages of DeepSpeed; activation
            checkpointing of networks without blocks.
    """

    def __init__(
        self,
        task: nn.Module,
        world: World,
        config: StepConfig,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        global_batch_size: int | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        on_gpu = world.device.type == "cuda"
        self.autocast = config.precision == "bfloat16" or (config.precision == "auto" and on_gpu)
        shares: Strategy | Gradients = strategy or Gradients(world)
        if config.cuda_graph and not (on_gpu and shares.can_capture):
            raise ValueError(
                "step.cuda_graph=true works on GPUs, with launch.strategy=ddp or launch.deepspeed=zero1; leave it out "
                "on CPUs and with other stages"
            )
        if self.autocast:
            hold_frozen_in(torch.bfloat16, task)
        if on_gpu:
            torch.backends.cudnn.benchmark = config.tune_convolutions
            if config.lean:
                keep_less(task)
        if config.activation_checkpointing and not recompute_blocks(task):
            raise ValueError(
                "step.activation_checkpointing: these networks are no lists of blocks; leave it out"
            )
        self.device = world.device
        self.channels_last = config.channels_last and on_gpu
        self._notes: list[str] = []
        self._mean, self._std = mean, std
        self._accumulation = config.accumulation
        self._weight_per_image = _weight_per_image(world, global_batch_size, sums=shares.is_plain)
        if self.channels_last:
            task.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._task, self._world = task, world
        synchronised = config.batch_norm == "synchronised"
        model = shares.wrap(task, sync_batch_norm=synchronised, autocast=self.autocast)
        self._strategy = shares
        self._forward = torch.compile(model) if config.compile else model
        # An engine's model is captured without the hooks that the engine has put on it.
        self._captured_forward = self._forward if model is task else task.forward
        by_default = on_gpu and shares.is_plain
        self._captures = by_default if config.cuda_graph is None else config.cuda_graph
        self._graphs: dict[torch.Size, CudaGraphStep | None] = {}
        self._hang_watch = HangWatch(world.timeout_s) if self._captures and world.size > 1 else None
        self._student_stream: torch.cuda.Stream | None = None
        if self._captures and config.overlap_networks and hasattr(task, "student_stream"):
            self._student_stream = torch.cuda.Stream(self.device)

    def __call__(self, batch: Batch) -> Output:
        """Forward and backward of one batch; earlier gradients are forgotten.

        The output is the last part's where step.accumulation cuts the batch in parts, and is overwritten by the next
        call where the step is replayed from a CUDA graph. Batches of a third size and more run without a graph; with
        several ranks, of a second: all ranks have to capture a size at the same call.
        """
        inputs = (batch.images, batch.flip, batch.labels)
        graph = self._graph(inputs) if self._captures else None
        if graph is None:
            return self._run(*self._on_device(inputs))
        output = graph.replay(*inputs)
        if self._hang_watch:
            self._hang_watch.add()
        self._strategy.after_replay()
        return output

    def take_notes(self) -> list[str]:
        """Lines for the log of the run, once."""
        notes, self._notes = self._notes, []
        return notes

    def exposed_reduction_s(self) -> float | None:
        """Seconds for which the last step waited for its all-reduces after the backward pass; None: nothing to wait
        for. To be asked once the device is done with the step."""
        buckets = self._strategy.buckets
        if buckets is None or buckets.waited is None:
            return None
        began, ended = buckets.waited
        return began.elapsed_time(ended) / 1000

    def images(self, batch: Batch) -> Tensor:
        """Normalised float images on the device, flipped where the batch says so."""
        return self._normalise(batch.images.to(self.device, non_blocking=True), batch.flip.to(self.device))

    def _on_device(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x.to(self.device, non_blocking=True) for x in inputs)

    def _graph(self, inputs: tuple[Tensor, Tensor, Tensor]) -> CudaGraphStep | None:
        shape = inputs[0].shape
        if shape not in self._graphs and len(self._graphs) < (MAX_GRAPHS if self._world.size == 1 else 1):
            self._graphs[shape] = self._capture(inputs)
        return self._graphs.get(shape)

    def _capture(self, inputs: tuple[Tensor, Tensor, Tensor]) -> CudaGraphStep | None:
        """A graph of the step; None where some rank cannot have one: then none of them uses graphs any more."""
        graph, reason = None, self._why_not_captured(inputs)
        if self._all_ranks(reason is None):
            beside = next(filter(None, self._graphs.values()), None)
            # Only captured work runs on two streams: without a graph, memory might be freed that the other one reads.
            if self._student_stream is not None:
                self._task.student_stream = self._student_stream  # pyright: ignore[reportArgumentType]
            try:
                run = partial(self._run, captured=True)
                graph = CudaGraphStep(run, self._task, inputs, device=self.device, beside=beside)
            except CaptureError as error:
                reason = str(error)
            finally:
                if self._student_stream is not None:
                    self._task.student_stream = None  # pyright: ignore[reportArgumentType]
            if self._all_ranks(graph is not None):
                return graph
        self._captures = False
        reason = reason or "another worker's step cannot be captured"
        self._notes.append(f"this step runs without a CUDA graph, slower at small batches: {reason}")
        return None

    def _all_ranks(self, fine: bool) -> bool:
        return bool(self._world.least(torch.tensor(int(fine), device=self.device)))

    def _why_not_captured(self, inputs: tuple[Tensor, ...]) -> str | None:
        """A submodule that waits for the device, found without the other ranks; synchronised BatchNorm needs them."""
        if any(isinstance(module, nn.SyncBatchNorm) for module in self._task.modules()):
            return None
        on_device = self._on_device(inputs)
        with no_trace(self._task, self.device):
            return why_not_captured(lambda: self._run(*on_device, captured=True, is_local=True), self._task)

    def _run(
        self, images: Tensor, flip: Tensor, labels: Tensor, *, captured: bool = False, is_local: bool = False
    ) -> Output:
        self._task.zero_grad(set_to_none=True)
        # Rounded once: the networks' first layers would do it one by one, and keep both.
        normal = self._normalise(images, flip, torch.bfloat16 if self.autocast else torch.float32)
        weight = self._weight_per_image(len(labels))
        *first, last = zip(normal.chunk(self._accumulation), labels.chunk(self._accumulation), strict=True)
        for part in first:
            self._run_part(*part, weight, is_last=False, captured=captured)
        return self._run_part(*last, weight, is_last=not is_local, captured=captured)

    def _run_part(
        self, images: Tensor, labels: Tensor, weight: float, *, is_last: bool, captured: bool
    ) -> Output:
        strategy = self._strategy
        forward, backward = (
            (self._captured_forward, strategy.captured_backward)
            if captured
            else (self._forward, strategy.backward)
        )
        # Without the cache of casted weights, which a captured graph must not depend on.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.autocast, cache_enabled=not captured
        ):
            output: Output = forward(images, labels)
        backward(output.loss * (len(labels) * weight), is_last=is_last)
        # Its autograd graph would hold nodes of this step's stream into the next step.
        return output._replace(loss=output.loss.detach())

    def _normalise(self, images: Tensor, flip: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        last = self.channels_last
        return normalise(images, flip, mean=self._mean, std=self._std, channels_last=last, dtype=dtype)


def _weight_per_image(world: World, global_batch_size: int | None, *, sums: bool) -> Callable[[int], float]:
    """By what an image's loss is multiplied, given how many this rank holds, so that gradients are the global mean's.

    Args:
        sums: whether gradients are summed over the ranks; else they are averaged.
    """
    per_rank = 1 if sums else world.size
    if global_batch_size is None:
        return lambda num_images: per_rank / (num_images * world.size)
    return lambda _: per_rank / global_batch_size
