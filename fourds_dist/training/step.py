"""One training step: batch to the device, forward under autocast, backward. The same for both stages.

On a GPU the time goes where it is least seen: at small batches the device waits for Python, which `cuda_graph` cures by
replaying one recorded step (`recording.py`); at large ones for memory traffic, which `compile` and bfloat16 reduce.
`python -m fourds_dist.benchmark step` times it, `... numerics` compares its fast form with plain float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fourds_dist.config import Section
from fourds_dist.data.batch import Batch, normalise
from fourds_dist.effects import COURSE, LOG, NUMERICS, WEIGHTS
from fourds_dist.method.lean import hold_frozen_in, keep_less
from fourds_dist.method.output import Output
from fourds_dist.method.recompute import recompute_blocks
from fourds_dist.training.recording import Recording
from fourds_dist.training.strategy import Strategy
from fourds_dist.training.world import World

MAX_RECORDINGS = 2  # whole batches, and the odd one at the end of an epoch


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
    computed: the same results in more time and less memory. Without CUDA graph, without compile."""

    compile: Annotated[bool, NUMERICS] = False
    """Compile the task with torch.compile: about a minute at the start, some percent faster on GPUs."""

    cuda_graph: Annotated[bool | None, NUMERICS] = None
    """Record the step once and replay it, so that the GPU never waits for Python; null: on one GPU yes, else no (nor
    with activation_checkpointing)."""

    tune_convolutions: Annotated[bool, NUMERICS] = True
    """Let cuDNN try its algorithms on every new shape, some seconds at the start, and keep the fastest."""

    batch_norm: Annotated[Literal["averaged", "synchronised"], WEIGHTS] = "averaged"
    """Several workers: `averaged` normalises by each worker's batch and averages the running statistics before
    evaluation and saving; `synchronised` normalises by the global batch (GPUs only)."""

    accumulation: Annotated[int, NUMERICS] = Field(default=1, ge=1)
    """Cut each worker's share of the batch into this many parts, one after another, to save memory."""

    eval_batch_size_per_rank: Annotated[int, NUMERICS] = Field(default=256, ge=1)
    """Images per forward pass of evaluation, in each worker."""

    log_every_steps: Annotated[int, LOG] = Field(default=10, ge=1)
    """Steps between two lines of metrics; only these steps wait for the device, and only at them does a run notice that
    it is to stop."""

    max_bad_steps: Annotated[int, COURSE] = Field(default=0, ge=0)
    """Steps with gradients that are not finite which a run may leave out; 0: the first loss that is not finite stops
    it. Weights that are not finite always do. Their images are named in bad_batch-*.json."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("cuda_graph", "compile"):
            if self.activation_checkpointing and getattr(self, key):
                raise ValueError(f"{key} does not go with activation_checkpointing; leave one of them out")
        return self


class TrainStep:
    """Calls the task on a batch and leaves the batch's gradients in its parameters.

    Args:
        task: the module that turns (images, labels) into an `Output`, on the world's device.
        mean, std: of the normalised images, per channel, in [0, 1] units.
        global_batch_size: images of all ranks together; the gradient is then the mean over them also where ranks hold
            unequal shares. None: every rank holds as many.
        strategy: wraps the task and takes its backward passes; None: DDP over the world's ranks.

    Raises:
        ValueError: a CUDA graph asked for where there is none: on CPUs or over several workers; activation
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
        if config.cuda_graph and (not on_gpu or world.size > 1):
            raise ValueError(
                "step.cuda_graph=true works on one GPU; leave it out on CPUs and with several workers"
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
        self._mean, self._std = mean, std
        self._accumulation = config.accumulation
        # DDP averages over ranks: this much of the global mean is one image's of ours.
        self._weight_per_image = None if global_batch_size is None else world.size / global_batch_size
        if self.channels_last:
            task.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._task = task
        self._strategy = strategy
        synchronised = config.batch_norm == "synchronised"
        self._model = (
            strategy.wrap(task, sync_batch_norm=synchronised, autocast=self.autocast)
            if strategy
            else world.wrap(task, sync_batch_norm=synchronised)
        )
        self._forward = torch.compile(self._model) if config.compile else self._model
        may_record = on_gpu and world.size == 1 and (strategy is None or strategy.is_plain)
        may_record = may_record and not config.activation_checkpointing
        self._records = may_record if config.cuda_graph is None else config.cuda_graph
        self._recordings: dict[torch.Size, Recording] = {}

    def __call__(self, batch: Batch) -> Output:
        """Forward and backward of one batch; earlier gradients are forgotten.

        The output is the last part's where step.accumulation cuts the batch in parts, and is overwritten by the next
        call where the step is replayed from a CUDA graph. Batches of a third size and more run without a graph.
        """
        inputs = (batch.images, batch.flip, batch.labels)
        recording = self._recording(inputs) if self._records else None
        if recording is not None:
            return recording.replay(*inputs)
        return self._run(*(x.to(self.device, non_blocking=True) for x in inputs))

    def images(self, batch: Batch) -> Tensor:
        """Normalised float images on the device, flipped where the batch says so."""
        return self._normalise(batch.images.to(self.device, non_blocking=True), batch.flip.to(self.device))

    def _recording(self, inputs: tuple[Tensor, Tensor, Tensor]) -> Recording | None:
        shape = inputs[0].shape
        if shape not in self._recordings and len(self._recordings) < MAX_RECORDINGS:
            first = next(iter(self._recordings.values()), None)
            self._recordings[shape] = Recording(
                self._run, self._task, inputs, device=self.device, beside=first
            )
        return self._recordings.get(shape)

    def _run(self, images: Tensor, flip: Tensor, labels: Tensor) -> Output:
        self._task.zero_grad(set_to_none=True)
        # Rounded once: the networks' first layers would do it one by one, and keep both.
        normal = self._normalise(images, flip, torch.bfloat16 if self.autocast else torch.float32)
        weight = self._weight_per_image or 1 / len(labels)
        *first, last = zip(normal.chunk(self._accumulation), labels.chunk(self._accumulation), strict=True)
        for part in first:
            with self._gradients_stay_local():
                self._run_part(*part, weight, is_last=False)
        return self._run_part(*last, weight, is_last=True)

    def _run_part(self, images: Tensor, labels: Tensor, weight: float, *, is_last: bool) -> Output:
        # Without the cache of casted weights, which a recorded graph must not depend on.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.autocast, cache_enabled=not self._records
        ):
            output: Output = self._forward(images, labels)
        loss = output.loss * (len(labels) * weight)
        if self._strategy:
            self._strategy.backward(loss, is_last=is_last)
        else:
            loss.backward()
        return output

    def _normalise(self, images: Tensor, flip: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        last = self.channels_last
        return normalise(images, flip, mean=self._mean, std=self._std, channels_last=last, dtype=dtype)

    def _gradients_stay_local(self) -> AbstractContextManager:
        if self._strategy:
            return self._strategy.gradients_stay_local()
        return self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else nullcontext()
