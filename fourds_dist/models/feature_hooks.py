"""Forward hooks that read and rewrite the stages of a network, without changes to the classifier or its state dict."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fourds_dist.models.feature_layout import (
    Layout,
    first_tensor,
    from_map,
    grid_side,
    layouts_of,
    to_map,
    with_first_tensor,
)
from fourds_dist.models.network_mode import in_mode


class StageInfo(NamedTuple):
    """A submodule whose output the losses compare and, in the teacher, an adapter rewrites."""

    name: str
    layout: Layout
    channels: int
    size: tuple[int, int]
    """(H, W) of the stage's map."""


class NetworkInfo(NamedTuple):
    """Stages and number of classes of a network for images of one size."""

    stages: tuple[StageInfo, ...]
    num_classes: int


class FeatureHooks:
    """Record a network's stages as maps (B, C, H, W) during a forward pass, and replace each output by `rewrite`.

    Args:
        rewrite: one module per stage, from map to map; empty or None: outputs stay as they are.
    """

    def __init__(
        self, network: nn.Module, stages: Sequence[StageInfo], rewrite: nn.ModuleList | None = None
    ) -> None:
        self._stages = stages
        self.rewrite = nn.ModuleList() if rewrite is None else rewrite
        self._maps: dict[int, Tensor] = {}
        for index, stage in enumerate(stages):
            network.get_submodule(stage.name).register_forward_hook(partial(self._hook, index))

    def take(self) -> list[Tensor]:
        """Return and clear the stages' maps of the last forward pass, before `rewrite`."""
        maps, self._maps = self._maps, {}
        return [maps[index] for index in sorted(maps)]

    def _hook(self, index: int, module: nn.Module, args: tuple, output: Any) -> Any:
        del module, args
        layout, tensor = self._stages[index].layout, first_tensor(output)
        assert tensor is not None
        self._maps[index] = to_map(tensor, layout, self._stages[index].size[0])
        if not self.rewrite:
            return None
        return with_first_tensor(output, from_map(self.rewrite[index](self._maps[index]), layout, tensor))


def inspect_stages(
    network: nn.Module,
    names: Sequence[str],
    image_size: int,
    *,
    what: str = "network",
    key: str = "data.crop_px",
) -> NetworkInfo:
    """Return the stages and number of classes of a network, found by a forward pass of a zero image.

    Args:
        image_size: side of the square image in pixels.
        what: the network's role, for error messages ("teacher").
        key: key of image_size in the configuration, for error messages.

    Raises:
        ValueError: the network refuses images of this size, a stage is not a feature map or does not run exactly once,
            or the output is not logits of shape (B, K).
    """
    outputs: dict[str, list] = {name: [] for name in names}
    ran: list[str] = []
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _m, _a, output, n=name: (outputs[n].append(output), ran.append(n))[0]
        )
        for name in names
    ]
    kind = type(network).__name__
    reference = next(network.parameters())
    try:
        with in_mode(network, training=False), torch.no_grad():
            logits = network(
                torch.zeros(1, 3, image_size, image_size, device=reference.device, dtype=reference.dtype)
            )
    except (AssertionError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{what}: {kind} does not take images of {image_size} px in three channels ({reason}); "
            f"change {key} or {what}.arch"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ValueError(
            f"{what}: {kind} returns {what_is(logits)} instead of logits of shape (B, K); name an entry point under "
            f"{what}.arch whose network returns only logits"
        )
    stages = _stages(outputs, what, getattr(network, "num_prefix_tokens", None))
    if ran != list(names):
        raise ValueError(
            f"{what}: stages {', '.join(names)} do not run in this order; name them in the order {', '.join(ran)}"
        )
    return NetworkInfo(stages, logits.shape[1])


def what_is(output: object) -> str:
    """Describe a network's output, for error messages."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"a {type(output).__name__}"


def _stages(outputs: dict[str, list], what: str, num_prefix_tokens: int | None) -> tuple[StageInfo, ...]:
    tensors: dict[str, Tensor] = {}
    for name, results in outputs.items():
        if len(results) != 1:
            raise ValueError(
                f"{what}: stage {name!r} runs {len(results)} times in a forward pass; name a stage that runs once"
            )
        tensor = first_tensor(results[0])
        if tensor is None or tensor.dim() not in (3, 4):
            raise ValueError(
                f"{what}: stage {name!r} returns {what_is(results[0])} instead of a feature map of shape "
                f"(B, C, H, W), (B, H, W, C) or (B, tokens, C); choose another submodule under {what}.stages"
            )
        tensors[name] = tensor
    try:
        layouts = layouts_of([tensor.shape for tensor in tensors.values()])
    except ValueError as error:
        raise ValueError(
            f"{what}: stages {', '.join(outputs)}: {error}; choose others under {what}.stages"
        ) from None
    stages = []
    for (name, tensor), layout in zip(tensors.items(), layouts, strict=True):
        map_BCHW = to_map(tensor, layout, grid_side(tensor.shape[1], num_prefix_tokens))
        stages.append(StageInfo(name, layout, map_BCHW.shape[1], (map_BCHW.shape[2], map_BCHW.shape[3])))
    return tuple(stages)
