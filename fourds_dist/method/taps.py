"""Stages of a network, read and rewritten through forward hooks: a classifier needs no changes for it, and its state
dict keeps its names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fourds_dist.method.maps import Layout, from_map, grid_side, layout_of, to_map


class Stage(NamedTuple):
    """A submodule whose output is compared and, in the teacher, adapted."""

    name: str
    layout: Layout
    channels: int
    size: tuple[int, int]
    """(H, W) of its map."""


class Anatomy(NamedTuple):
    """What a network is like for images of one size."""

    stages: tuple[Stage, ...]
    num_classes: int


class StageTaps:
    """Reads a network's stages as maps (B, C, H, W) during a forward pass, and passes each on through `rewrite`.

    Args:
        rewrite: one module a stage, from map to map; empty or None leaves the network as it is.
    """

    def __init__(
        self, network: nn.Module, stages: Sequence[Stage], rewrite: nn.ModuleList | None = None
    ) -> None:
        self._stages = stages
        self._rewrite = rewrite
        self._maps: dict[int, Tensor] = {}
        for index, stage in enumerate(stages):
            network.get_submodule(stage.name).register_forward_hook(partial(self._tap, index))

    def take(self) -> list[Tensor]:
        """The stages' maps of the last forward pass, before any rewriting; a second call finds none."""
        maps, self._maps = self._maps, {}
        return [maps[index] for index in sorted(maps)]

    def _tap(self, index: int, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        del module, args
        layout = self._stages[index].layout
        self._maps[index] = to_map(output, layout, self._stages[index].size[0])
        if not self._rewrite:
            return None
        return from_map(self._rewrite[index](self._maps[index]), layout, output)


def anatomy(network: nn.Module, names: Sequence[str], image_size: int, *, what: str = "network") -> Anatomy:
    """Stages and classes of a network, found by one forward pass of an empty image of `image_size` pixels a side.

    Args:
        what: the network's role, for error messages ("teacher").

    Raises:
        ValueError: images of a size that the network refuses, a stage that is no feature map or does not run exactly
            once, or an output that is not logits of shape (B, K).
    """
    outputs: dict[str, list] = {name: [] for name in names}
    ran: list[str] = []
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _m, _a, output, n=name: (outputs[n].append(output), ran.append(n))[0]
        )
        for name in names
    ]
    kind, was_training = type(network).__name__, {m: m.training for m in network.modules()}
    reference = next(network.parameters())
    try:
        network.eval()
        with torch.no_grad():
            logits = network(
                torch.zeros(1, 3, image_size, image_size, device=reference.device, dtype=reference.dtype)
            )
    except (AssertionError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{what}: {kind} does not take images of {image_size} px in three channels ({reason}); "
            f"change data.crop_px or {what}.arch"
        ) from None
    finally:
        for module, training in was_training.items():
            module.training = training
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ValueError(
            f"{what}: {kind} gives no logits of shape (B, K) but {what_is(logits)}; 4Ds distils classifiers: "
            "name an entry "
            f"point under {what}.arch whose network gives its logits alone"
        )
    stages = _stages(outputs, what, getattr(network, "num_prefix_tokens", None))
    if ran != list(names):
        raise ValueError(
            f"{what}: stages {', '.join(names)} do not run in this order; name them as they run: {', '.join(ran)}"
        )
    return Anatomy(stages, logits.shape[1])


def what_is(output: object) -> str:
    """An output's kind in words, for error messages."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"a {type(output).__name__}"


def _stages(outputs: dict[str, list], what: str, num_prefix_tokens: int | None) -> tuple[Stage, ...]:
    for name, given in outputs.items():
        if len(given) != 1:
            raise ValueError(
                f"{what}: stage {name!r} runs {len(given)} times in a forward pass; name one that runs once"
            )
        if not isinstance(given[0], Tensor) or given[0].dim() not in (3, 4):
            shape = tuple(given[0].shape) if isinstance(given[0], Tensor) else type(given[0]).__name__
            raise ValueError(
                f"{what}: stage {name!r} gives no feature map of shape (B, C, H, W), (B, H, W, C) or (B, tokens, C) "
                f"but {shape}; choose another submodule under {what}.stages"
            )
    try:
        layout = layout_of([given[0].shape for given in outputs.values()])
    except ValueError as error:
        raise ValueError(
            f"{what}: stages {', '.join(outputs)}: {error}; choose others under {what}.stages"
        ) from None
    sides = {name: grid_side(given[0].shape[1], num_prefix_tokens) for name, given in outputs.items()}
    maps = {name: to_map(given[0], layout, sides[name]) for name, given in outputs.items()}
    return tuple(Stage(n, layout, m.shape[1], (m.shape[2], m.shape[3])) for n, m in maps.items())
