"""DeepSpeed's ZeRO as a strategy: one engine for the module, one optimiser with SGD and AdamW groups.

    stage 0  every rank has all weights           2  gradients are partitioned too
    stage 1  optimiser state is partitioned       3  weights are partitioned too, including the frozen teacher's

The frozen teacher has no optimiser state in any stage. Checkpoints have complete tensors by parameter, as under DDP, so
strategy, stage and number of ranks may change between two starts of a run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fourds_dist.io.extras import importing
from fourds_dist.method.task import Task
from fourds_dist.ops.fused import is_channels_last
from fourds_dist.training.checkpoint.learning_state import CheckpointRefusedError
from fourds_dist.training.distributed.gradient_buckets import GradientBuckets
from fourds_dist.training.distributed.world import World
from fourds_dist.training.strategies import deepspeed_private
from fourds_dist.training.strategies.base import OptimizerState
from fourds_dist.training.strategies.deepspeed_config import read_config
from fourds_dist.training.strategies.mixed_optimizer import KINDS, MixedOptimizer
from fourds_dist.training.strategies.optim import OptimConfig, learning_rate

ALIGNMENT_BYTES = 16


class DeepSpeedStrategy:
    """ZeRO over the world's ranks.

    Args:
        num_steps: number of optimiser steps of the whole run.
        config: name of a built-in configuration, or path or URL of a file.

    Raises:
        ValueError: a configuration that cannot be read or contradicts the run's.
    """

    is_plain = False
    buckets: GradientBuckets | None = None

    def __init__(self, world: World, optim: OptimConfig, num_steps: int, config: str) -> None:
        self._world, self._optim, self._num_steps = world, optim, num_steps
        self._config = read_config(config)
        zero = self._config.get("zero_optimization", {})
        self._stage = int(zero.get("stage", 0))
        self.can_capture = (
            self._stage == 1 and not zero.get("overlap_comm") and "offload_optimizer" not in zero
        )
        if optim.max_grad_norm is not None:
            raise ValueError(
                "optim.max_grad_norm clips student and adapters separately, which ZeRO does not support; leave "
                f"optim.max_grad_norm at null and set gradient_clipping in launch.deepspeed={config}, which clips both "
                "together"
            )
        self._step = 0

    def wrap(self, task: Task, *, sync_batch_norm: bool, autocast: bool) -> nn.Module:
        """Return an engine with the task.

        The engine flattens trainable weights (in stage 3 all weights), which lose the channels-last format.
        Convolutions still use the format of their images.
        """
        deepspeed = _deepspeed()
        if not dist.is_initialized():  # DeepSpeed needs a group for a single process too
            backend = "nccl" if self._world.device.type == "cuda" else "gloo"
            store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
        if sync_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(task)  # which replaces layers in place
        frozen = [p for p in task.parameters() if not p.requires_grad and is_channels_last(p)]
        self._task = task.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        config = {"gradient_clipping": 0.0} | self._config  # DeepSpeed's default is 1
        config |= {
            "train_micro_batch_size_per_gpu": 1,  # only the ratio to the global batch matters
            "gradient_accumulation_steps": 1,
            "train_batch_size": self._world.size,
            "zero_allow_untested_optimizer": True,
            "torch_autocast": {"enabled": autocast, "dtype": "bfloat16"},
        }
        config.setdefault("timers", {"throughput": {"enabled": False}})  # waits for the device at every step
        self._optimizer = MixedOptimizer(self._groups(task))
        os.environ.setdefault("LOCAL_RANK", str(self._world.device.index or 0))  # required by DeepSpeed
        self._engine, *_ = deepspeed.initialize(
            model=task, optimizer=self._optimizer, config=config, dist_init_required=False
        )
        if self._stage < 3:
            for p in frozen:
                p.data = p.data.contiguous(memory_format=torch.channels_last)
        if self.can_capture:
            deepspeed_private.free_for_capture(self._engine.optimizer, self._learning().values())
        self._create_states()
        self._set_step(0)
        return self._engine

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Run the backward pass of the engine, which reduces gradients according to its stage."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        if self.can_capture:
            deepspeed_private.prepare_buckets(self._engine.optimizer)
        self._engine.backward(loss, scale_wrt_gas=False)
        if not is_last:
            self._engine.step()  # counts the part, without an update

    def captured_backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Compute this rank's gradients; stage 1 reduces them after the graph, in `after_replay`."""
        del is_last
        loss.backward()

    def after_replay(self) -> None:
        """Reduce the gradients to the partitions that each rank updates."""
        deepspeed_private.reduce_gradients(self._engine)

    def step(self, *, unless: Tensor | None = None) -> bool:
        """Step the engine; engines that compute a gradient norm skip steps with gradients that are not finite."""
        assert unless is None
        self._engine.step()
        if deepspeed_private.skipped_step(self._engine.optimizer):
            return True
        self._set_step(self._step + 1)
        return False

    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rate by group."""
        return {group["name"]: float(group["lr"]) for group in self._optimizer.param_groups}

    def weights(self) -> dict[str, Tensor]:
        """Return the trainable parameters and all buffers, copied to the CPU."""
        weights = {
            name: self._whole(p).to("cpu", torch.float32, copy=True) for name, p in self._learning().items()
        }
        names = {name for name, _ in self._task.named_parameters()}
        buffers = {k: v for k, v in self._task.state_dict().items() if k not in names}
        return weights | {k: v.detach().to("cpu", copy=True) for k, v in buffers.items()}

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Load the result of `weights` of any strategy."""
        deepspeed, learning = _deepspeed(), self._learning()
        buffers = dict(self._task.named_buffers())
        self._refuse_others(set(weights) ^ (set(learning) | (set(self._task.state_dict()) & set(buffers))))
        for name, value in weights.items():
            if name in buffers:
                buffers[name].copy_(value)
                continue
            p, value = learning[name], value.to(self._world.device)
            if tuple(value.shape) != deepspeed_private.whole_shape(p):
                self._refuse_others({name})
            if self._stage > 0:
                deepspeed.utils.safe_set_full_fp32_param(p, value)
            with self._gathered([p], modifier_rank=0):
                if self._stage < 3 or self._world.is_main:
                    p.data.copy_(value)

    def optimizer_state(self) -> OptimizerState:
        """Return the complete state of the optimiser by parameter, copied to the CPU."""
        deepspeed, kinds = _deepspeed(), self._kinds()
        result: OptimizerState = {}
        for name, p in self._learning().items():
            if self._stage == 0:
                state = self._optimizer.state[p]
            else:
                get = deepspeed.utils.safe_get_full_optimizer_state
                state = {key: get(p, key) for key in KINDS[kinds[name]]}
                if kinds[name] == "adamw":
                    state["step"] = torch.tensor(float(self._step))
            result[name] = {key: value.detach().to("cpu", copy=True) for key, value in state.items()}
        return result if self._step else {}

    @torch.no_grad()
    def load_optimizer_state(self, state: OptimizerState, step: int) -> None:
        """Load the result of `optimizer_state` of any strategy, and set the schedules to a step."""
        deepspeed, learning = _deepspeed(), self._learning()
        self._refuse_others(set(state) - set(learning))
        for name, values in state.items():
            for key, value in values.items():
                if self._stage == 0:
                    self._optimizer.state[learning[name]][key].copy_(value)
                elif key != "step":
                    whole = value.to(self._world.device)
                    deepspeed.utils.safe_set_full_optimizer_state(learning[name], whole, key)
        steps = [values["step"] for values in state.values() if "step" in values]
        for own in self._optimizer.state.values():
            if "step" in own and steps:
                own["step"].copy_(steps[0])
        self._set_step(step)

    @property
    def in_step(self) -> bool:
        """Whether a forward pass needs all ranks: stage 3 gathers weights for every forward pass."""
        return self._stage == 3

    def unwrap(self) -> None:
        """Turn the task into a plain module with all weights, on every rank."""
        if self._stage < 3:
            self._engine.destroy()
            return
        with self._gathered(list(self._task.parameters())):
            plain = {name: p.detach().clone() for name, p in self._task.named_parameters()}
        trains = {name: p.requires_grad for name, p in self._task.named_parameters()}
        self._engine.destroy()
        for prefix, module in self._task.named_modules():
            for name in list(module._parameters):
                full = f"{prefix}.{name}" if prefix else name
                if full in plain:
                    module._parameters[name] = nn.Parameter(plain[full], requires_grad=trains[full])

    def _groups(self, task: Task) -> list[dict[str, Any]]:
        optim = self._optim
        groups = task.parameter_groups()
        sgd = {"kind": "sgd", "momentum": optim.momentum, "weight_decay": optim.weight_decay}
        adamw = {"kind": "adamw", "eps": optim.adapter_eps, "weight_decay": optim.adapter_weight_decay}
        return [
            {
                "params": sorted(parameters, key=_odd_length_last),
                "name": name,
                **(adamw if name == "adapters" else sgd),
            }
            for name, parameters in groups.items()
        ]

    def _create_states(self) -> None:
        """Create the optimiser's state before the first step, so that a checkpoint can be loaded."""
        groups, zero = self._optimizer.param_groups, self._engine.optimizer
        if self._stage == 0:
            slices = [(p, group) for group in groups for p in group["params"]]
        else:
            slices = deepspeed_private.partitions(zero, self._stage, groups)
        for p, group in slices:
            self._optimizer.create_state(p, group["kind"])
        if 0 < self._stage < 3:
            deepspeed_private.link_optimizer_state(zero)

    def _set_step(self, step: int) -> None:
        self._step = step
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(group["name"], self._optim, step / self._num_steps)

    def _learning(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._task.named_parameters() if p.requires_grad}

    def _kinds(self) -> dict[str, str]:
        groups = self._task.parameter_groups()
        names = {id(p): name for name, p in self._task.named_parameters()}
        return {
            names[id(p)]: "adamw" if group == "adapters" else "sgd"
            for group, parameters in groups.items()
            for p in parameters
        }

    def _whole(self, p: nn.Parameter) -> Tensor:
        return p.detach() if self._stage == 0 else _deepspeed().utils.safe_get_full_fp32_param(p)

    @contextmanager
    def _gathered(self, parameters: list[nn.Parameter], modifier_rank: int | None = None) -> Iterator[None]:
        if self._stage < 3:
            yield
            return
        with _deepspeed().zero.GatheredParameters(parameters, modifier_rank=modifier_rank):
            yield

    @staticmethod
    def _refuse_others(names: set[str]) -> None:
        if names:
            raise CheckpointRefusedError(
                f"the checkpoint belongs to another model: {len(names)} tensors differ (first: {min(names)})"
            )


def _odd_length_last(p: Tensor) -> bool:
    """Order the parameters of a flat tensor such that all others stay aligned: cuDNN's BatchNorm needs 16 bytes."""
    return p.numel() * p.element_size() % ALIGNMENT_BYTES != 0


def _deepspeed() -> Any:
    """Import DeepSpeed, without an operator whose compilation at the first use on CPUs takes a minute."""
    with importing("deepspeed", "use launch.strategy=ddp"):
        import deepspeed
        import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
