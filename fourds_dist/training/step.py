"""One training step for all stages: copy to the device, forward under autocast, backward.

At small batches a GPU waits for Python, which `cuda_graph` avoids by replaying a captured step on every rank. At large
batches memory traffic is the limit, which `compile` and bfloat16 reduce. `python -m fourds_dist.benchmark step`
measures the step, `... numerics` compares the fast step with plain float32.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fourds_dist.config.effects import COURSE, LOG, NUMERICS, SPEED, WEIGHTS
from fourds_dist.config.section import ConfigSection
from fourds_dist.data.stream.batch import Batch, augmented, normalise
from fourds_dist.method.label_mix import LabelMix
from fourds_dist.method.output import Output
from fourds_dist.method.task import Task
from fourds_dist.models.activation_checkpointing import checkpoint_blocks
from fourds_dist.models.memory_saving import cast_frozen_weights, save_activation_memory
from fourds_dist.models.norm_fusion import fuse_norms
from fourds_dist.training.cuda_graph import CaptureError, CudaGraphStep, HangWatch, no_trace, why_not_captured
from fourds_dist.training.distributed.world import World
from fourds_dist.training.strategies.base import Strategy
from fourds_dist.training.strategies.ddp import ReplicatedWeights

NO_CUDA_GRAPH = (
    "step.cuda_graph=true works on GPUs, with launch.strategy=ddp or launch.deepspeed=zero1; leave step.cuda_graph at "
    "null on CPUs and with other stages of DeepSpeed"
)
MAX_GRAPHS = 2  # full batches, and the smaller batch at the end of an epoch


class StepConfig(ConfigSection):
    """Settings of a step's computation."""

    precision: Annotated[Literal["auto", "float32", "bfloat16"], WEIGHTS] = "auto"
    """`bfloat16`: networks under autocast, Fourier transforms and losses in float32. `auto`: bfloat16 on GPUs, float32
    on CPUs."""

    channels_last: Annotated[bool, NUMERICS] = True
    """Use channels-last memory for images and convolution weights on GPUs (with DeepSpeed for images only)."""

    memory_saving: Annotated[bool, NUMERICS] = True
    """On GPUs, pooling, ReLUs and frozen convolutions store only what their gradients need: a fourth less memory and
    less time, with the same results."""

    activation_checkpointing: Annotated[bool, NUMERICS] = False
    """Run residual blocks, transformer layers and adapters again in the backward pass instead of storing activations:
    less memory and more time, with the same results. Excludes compile."""

    compile: Annotated[bool, NUMERICS] = False
    """Compile the networks with torch.compile: 45 s at the start, then 1.16 times the speed at 32 images per GPU and
    1.33 times at 8, for full batches in training. Pays from some 50,000 steps. Excludes DeepSpeed."""

    cuda_graph: Annotated[bool | None, NUMERICS] = None
    """Capture the step, with its all-reduces, as a CUDA graph and replay the graph on every worker, so that the GPU
    does not wait for Python. null: on GPUs with launch.strategy=ddp and launch.deepspeed=zero1. A step that cannot be
    captured runs without a graph, which the log reports."""

    overlap_networks: Annotated[bool, SPEED] = True
    """In captured steps, run teacher and student in parallel on two CUDA streams: the same results in less time,
    especially with small batches."""

    cudnn_benchmark: Annotated[bool, NUMERICS] = True
    """Let cuDNN measure its algorithms for every new shape, some seconds at the start, and use the fastest."""

    batch_norm: Annotated[Literal["averaged", "synchronised"], WEIGHTS] = "averaged"
    """With several workers, `averaged` normalises by each worker's batch and averages the running statistics before
    evaluation and checkpoints; `synchronised` normalises by the global batch (GPUs only)."""

    norm: Annotated[Literal["torch", "fused"] | None, NUMERICS] = None
    """`fused`: BatchNorm computes the residual sum and the activation after it in the same passes over memory, with
    equal results up to rounding. On NVIDIA GPUs with channels_last these are Triton kernels, compiled at the first
    start; elsewhere PyTorch's functions. Excludes compile; no effect on synchronised BatchNorm. `torch`: PyTorch's
    layers. null: fused on NVIDIA GPUs with channels_last, without compile."""

    gradient_accumulation_steps: Annotated[int, NUMERICS] = Field(default=1, ge=1, le=65536)
    """Number of sequential parts of each worker's share of the batch, to save memory."""

    eval_batch_size_per_rank: Annotated[int, NUMERICS] = Field(default=256, ge=1, le=65536)
    """Images per forward pass of evaluation, in each worker."""

    log_every_steps: Annotated[int, LOG] = Field(default=10, ge=1)
    """Steps between two lines of metrics. Only these steps wait for the device and check for stop requests."""

    max_nonfinite_steps: Annotated[int, COURSE] = Field(default=0, ge=0)
    """Maximum number of steps to skip because of gradients that are not finite; 0: the first loss that is not finite
    stops the run. Weights that are not finite always stop the run. nonfinite_batch-*.json names the images."""

    def uses_bfloat16(self, device: torch.device) -> bool:
        """Return whether networks on a device run under autocast in bfloat16."""
        return self.precision == "bfloat16" or (self.precision == "auto" and device.type == "cuda")

    def fuses_norms(self, device: torch.device) -> bool:
        """Return whether BatchNorms on a device compute what follows them."""
        if self.norm is not None:
            return self.norm == "fused"
        on_nvidia = device.type == "cuda" and torch.version.hip is None
        return on_nvidia and self.channels_last and not self.compile

    @model_validator(mode="after")
    def _check(self) -> StepConfig:
        if self.activation_checkpointing and self.compile:
            raise ValueError("compile does not go with activation_checkpointing; switch one of both off")
        if self.norm == "fused" and self.compile:
            raise ValueError(
                "compile fuses BatchNorm itself and does not go with norm=fused; switch one of both off"
            )
        return self


class TrainStep:
    """Forward and backward of the task on a batch; the gradients are in the parameters afterwards.

    Args:
        task: module from (images, labels) to an `Output`, on the world's device.
        mean, std: mean and standard deviation for the normalisation, per channel, in [0, 1] units.
        global_batch_size: number of images of all ranks; the gradient is their mean even if ranks have unequal shares.
            None: all ranks have equal shares.
        strategy: wraps the task and runs the backward pass; None: gradients are summed over the world's ranks, without
            an optimiser.

    Raises:
        ValueError: a CUDA graph where none is possible (CPUs, stages of DeepSpeed), or activation checkpointing of
            networks without blocks.
    """

    def __init__(
        self,
        task: Task,
        world: World,
        config: StepConfig,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        global_batch_size: int | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        on_gpu = world.device.type == "cuda"
        self.autocast = config.uses_bfloat16(world.device)
        shares: Strategy | ReplicatedWeights = strategy or ReplicatedWeights(world)
        if config.cuda_graph and not (on_gpu and shares.can_capture):
            raise ValueError(NO_CUDA_GRAPH)
        self._notes: list[str] = []
        if self.autocast:
            cast_frozen_weights(torch.bfloat16, task)
        if on_gpu:
            torch.backends.cudnn.benchmark = config.cudnn_benchmark
            if config.memory_saving:
                save_activation_memory(task)
        if config.fuses_norms(world.device):
            self._notes += _fuse_norms(task, config)
        if config.activation_checkpointing and not checkpoint_blocks(task):
            raise ValueError(
                "step.activation_checkpointing: these networks have no lists of blocks; set "
                "step.activation_checkpointing=false"
            )
        self.device = world.device
        self.channels_last = config.channels_last and on_gpu
        self._mean, self._std = mean, std
        self._accumulation = config.gradient_accumulation_steps
        self._weight_per_image = _weight_per_image(world, global_batch_size, sums=shares.is_plain)
        if self.channels_last:
            task.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._task, self._world = task, world
        synchronised = config.batch_norm == "synchronised"
        model = shares.wrap(task, sync_batch_norm=synchronised, autocast=self.autocast)
        self._strategy = shares
        # The model of an engine is captured without the engine's hooks.
        self._forward, self._captured_forward = model, model if model is task else task.forward
        self._compiles, self._compiled_shape = config.compile, None
        if config.compile:
            torch.compiler.reset()  # networks of earlier stages count for the maximum number of compilations
            for network in task.classifiers():
                network.compile(dynamic=False)
        self._captures = (on_gpu and shares.can_capture) if config.cuda_graph is None else config.cuda_graph
        self._graphs: dict[tuple[torch.Size, int], CudaGraphStep | None] = {}
        self._hang_watch = HangWatch(world.timeout_s) if self._captures and world.size > 1 else None
        self._student_stream: torch.cuda.Stream | None = None
        if self._captures and config.overlap_networks and hasattr(task, "student_stream"):
            self._student_stream = torch.cuda.Stream(self.device)

    def __call__(self, batch: Batch) -> Output:
        """Run forward and backward of one batch; earlier gradients are discarded.

        With step.gradient_accumulation_steps the output is that of the last part. With a CUDA graph the next call
        overwrites the output. One rank captures at most two batch sizes. Several ranks capture one, since all ranks
        have to capture a size at the same call. Batches of other sizes run without a graph.
        """
        if batch.draws is not None:
            batch = augmented(batch.to(self.device), fill=self._mean)
        inputs = (batch.images, batch.flip, batch.labels, *(batch.mixed or ()))
        self._compiled_shape = self._compiled_shape or batch.images.shape
        is_compiled = batch.images.shape == self._compiled_shape
        with nullcontext() if is_compiled else self.without_compilation():
            graph = self._graph(inputs, batch.num_source) if self._captures else None
            if graph is None:
                return self._run(*self._on_device(inputs), num_source=batch.num_source)
        output = graph.replay(*inputs)
        if self._hang_watch:
            self._hang_watch.add()
        self._strategy.after_replay()
        return output

    @property
    def is_captured(self) -> bool:
        """Whether steps are replays of a CUDA graph, except those of other batch sizes."""
        return any(self._graphs.values())

    def take_notes(self) -> list[str]:
        """Return and clear the lines for the log of the run."""
        notes, self._notes = self._notes, []
        return notes

    def exposed_reduction_s(self) -> float | None:
        """Return the seconds for which the last step waited for its all-reduces after the backward pass.

        Call this after the device has finished the step. None: there are no all-reduces.
        """
        buckets = self._strategy.buckets
        if buckets is None or buckets.waited is None:
            return None
        start, end = buckets.waited
        return start.elapsed_time(end) / 1000

    def without_compilation(self) -> AbstractContextManager[Any]:
        """Run the networks as they are in this context: every other shape and mode would compile them again."""
        return torch.compiler.set_stance("force_eager") if self._compiles else nullcontext()

    def images(self, batch: Batch) -> Tensor:
        """Return normalised float images on the device, flipped by the batch's mask."""
        return self._normalise(batch.images.to(self.device, non_blocking=True), batch.flip.to(self.device))

    def _on_device(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x.to(self.device, non_blocking=True) for x in inputs)

    def _graph(self, inputs: tuple[Tensor, ...], num_source: int) -> CudaGraphStep | None:
        size = (inputs[0].shape, num_source)
        if size not in self._graphs and len(self._graphs) < (MAX_GRAPHS if self._world.size == 1 else 1):
            self._graphs[size] = self._capture(inputs, num_source)
        return self._graphs.get(size)

    def _capture(self, inputs: tuple[Tensor, ...], num_source: int) -> CudaGraphStep | None:
        """Return a graph of the step; None if some rank cannot capture the step, and then no rank uses graphs again."""
        graph, reason = None, self._why_not_captured(inputs, num_source)
        if self._all_ranks(reason is None):
            other = next(filter(None, self._graphs.values()), None)
            # Without a graph, one of two streams might free memory that the other one reads.
            if self._student_stream is not None:
                self._task.student_stream = self._student_stream
            try:
                run = partial(self._run, num_source=num_source, captured=True)
                graph = CudaGraphStep(run, self._task, inputs, device=self.device, beside=other)
            except CaptureError as error:
                reason = str(error)
            finally:
                if self._student_stream is not None:
                    self._task.student_stream = None
            if self._all_ranks(graph is not None):
                return graph
        self._captures = False
        reason = reason or "another worker's step cannot be captured"
        self._notes.append(f"this step runs without a CUDA graph, slower at small batches: {reason}")
        return None

    def _all_ranks(self, condition: bool) -> bool:
        return bool(self._world.all_reduce_min(torch.tensor(int(condition), device=self.device)))

    def _why_not_captured(self, inputs: tuple[Tensor, ...], num_source: int) -> str | None:
        """Return the submodule that waits for the device, found on this rank alone and without compilation; None with
        synchronised BatchNorm, which needs the other ranks."""
        if any(isinstance(module, nn.SyncBatchNorm) for module in self._task.modules()):
            return None
        device_inputs = self._on_device(inputs)
        with no_trace(self._task, self.device), self.without_compilation():
            return why_not_captured(
                lambda: self._run(*device_inputs, num_source=num_source, captured=True, is_local=True),
                self._task,
            )

    def _run(
        self,
        images: Tensor,
        flip: Tensor,
        *labels_and_mix: Tensor,
        num_source: int = 0,
        captured: bool = False,
        is_local: bool = False,
    ) -> Output:
        self._task.zero_grad(set_to_none=True)
        # One cast for both networks: each first layer would cast the images and store its copy. Networks with images of
        # their own are an exception, since their conversion of rounded images would round twice.
        is_cast = self.autocast and not self._task.inputs
        normal = self._normalise(images, flip, torch.bfloat16 if is_cast else torch.float32)
        weight = self._weight_per_image(len(images))
        inputs = (normal, *labels_and_mix)
        *first, last = _parts(inputs, num_source, self._accumulation)
        for part, of_source in first:
            self._run_part(*part, num_source=of_source, weight=weight, is_last=False, captured=captured)
        part, of_source = last
        return self._run_part(
            *part, num_source=of_source, weight=weight, is_last=not is_local, captured=captured
        )

    def _run_part(
        self,
        images: Tensor,
        labels: Tensor,
        *mix: Tensor,
        num_source: int,
        weight: float,
        is_last: bool,
        captured: bool,
    ) -> Output:
        forward = self._captured_forward if captured else self._forward
        backward = self._strategy.captured_backward if captured else self._strategy.backward
        # A captured graph must not depend on autocast's cache of cast weights.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.autocast, cache_enabled=not captured
        ):
            label_mix = (LabelMix(*mix),) if mix else ()
            domains = {"num_source": num_source} if num_source else {}
            output: Output = forward(images, labels, *label_mix, **domains)
        backward(output.loss * (len(labels) * weight), is_last=is_last)
        # Without detach, the autograd graph would retain nodes of this step's stream during the next step.
        return output._replace(loss=output.loss.detach())

    def _normalise(self, images: Tensor, flip: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        last = self.channels_last
        return normalise(images, flip, mean=self._mean, std=self._std, channels_last=last, dtype=dtype)


def _parts(
    inputs: tuple[Tensor, ...], num_source: int, num_parts: int
) -> list[tuple[tuple[Tensor, ...], int]]:
    """Return the parts of a batch with their numbers of source images.

    In a batch of two domains every part has the shares of the batch, as nearly as whole images allow, and its source
    images are the last ones. The last parts have fewer images if the numbers are not divisible.
    """
    num_images = len(inputs[0])
    if num_parts == 1:
        return [(inputs, num_source)]
    if not num_source:
        return [(part, 0) for part in zip(*(x.chunk(num_parts) for x in inputs), strict=True)]
    num_target = num_images - num_source
    num_parts = min(num_parts, num_target, num_source)
    targets = zip(*(x[:num_target].tensor_split(num_parts) for x in inputs), strict=True)
    sources = zip(*(x[num_target:].tensor_split(num_parts) for x in inputs), strict=True)
    return [
        (tuple(map(torch.cat, zip(target, source, strict=True))), len(source[0]))
        for target, source in zip(targets, sources, strict=True)
    ]


def _fuse_norms(task: Task, config: StepConfig) -> list[str]:
    """Fuse the task's BatchNorms; return a line for the log if `fused` was asked for and has no effect."""
    why_not = None
    if config.batch_norm == "synchronised":
        why_not = "has no effect on synchronised BatchNorm, which runs by PyTorch's layers"
    elif fuse_norms(task).replaced == 0:
        why_not = "finds no BatchNorm in these networks, which run unchanged"
    return [f"step.norm=fused {why_not}"] if why_not and config.norm == "fused" else []


def _weight_per_image(world: World, global_batch_size: int | None, *, sums: bool) -> Callable[[int], float]:
    """Return a function from the number of this rank's images to the weight of an image's loss in the global mean.

    Args:
        sums: whether gradients are summed over the ranks; False: gradients are averaged.
    """
    per_rank = 1 if sums else world.size
    if global_batch_size is None:
        return lambda num_images: per_rank / (num_images * world.size)
    return lambda _: per_rank / global_batch_size
