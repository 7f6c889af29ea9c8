"""Stages of any network, found by one forward pass without values.

A stage is a module that every path from the image to the logits passes, so an adapter there rewrites all that later
layers read. Autograd's graph of the pass shows these modules: a node lies on every path if the number of paths through
the node equals the number of all paths. Blocks (modules with at least two weights) come before single layers, which
leaves out norms, the stem's convolution, and a final convolution that only widens the features for the classifier.

The four stages are the last blocks at strides 4, 8, 16 and 32. A network with fewer resolutions gets several stages in
its resolutions with most blocks: a plain transformer has four at quarters of its depth. A network whose branches of
different resolution never meet (HRNet) gets the last block of each resolution that reaches the logits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fourds_dist.models.feature_layout import first_tensor, grid_side, with_first_tensor

NUM_STAGES = 4
STRIDES = (4, 8, 16, 32)
"""Strides of the stages, if the network has them all."""
NUM_IMAGES = 2
"""Images of the pass. Windows and other parts of images enlarge the first dimension, and are no maps."""


@dataclass(frozen=True)
class Output:
    """A module's output in the pass, on the way from the image to the logits."""

    name: str
    side: int
    """Side of the square map, in pixels of the map."""
    is_tokens: bool
    is_nhwc: bool
    """The channels come last in a 4-D output."""
    is_block: bool
    """The module has at least two weights."""
    is_cut: bool
    """Every path from the image to the logits passes the output."""
    num_paths: int
    """Number of paths from the image to the logits through the output."""
    value: Any
    """Identity of the output's values: modules that return what their last submodule returns share it."""


def find_stages(network: nn.Module, image_size: int) -> tuple[str, ...] | None:
    """Return the names of four stages in the order in which they run; None if the network has no such four.

    The network stays unchanged. The pass runs on the meta device, or on the network's device if the network cannot run
    there.

    Args:
        image_size: side of the square images of the pass in pixels; a size that the network takes.

    Raises:
        Exception: an exception of the network on images of this size.
    """
    outputs = _outputs(network, image_size)
    blocks, listed = [o for o in outputs if o.is_block], _listed(outputs)
    tiers = (
        [o for o in blocks if o.is_cut and o.value in listed],
        [o for o in blocks if o.is_cut],
        [o for o in blocks if o.value in listed],
        [o for o in blocks if "." not in o.name],
    )
    found = [stages for candidates in tiers if (stages := _stages(candidates, image_size)) is not None]
    if found:
        return _names(max(found, key=lambda stages: len({stage.side for stage in stages})), outputs)
    cuts = [o for o in outputs if o.is_cut]
    stages = _stages([o for o in cuts if not o.is_nhwc], image_size) or _stages(cuts, image_size)
    return None if stages is None else _names(stages, outputs)


def _listed(outputs: Sequence[Output]) -> set[Any]:
    """Return the values that blocks in lists of modules return; networks repeat their blocks in lists."""
    return {
        output.value for output in outputs if output.is_block and output.name.rpartition(".")[2].isdecimal()
    }


def _stages(candidates: Sequence[Output], image_size: int) -> list[Output] | None:
    """Return four stages, none of which contains another; None if there are no four."""
    candidates = _without_containers(candidates)
    while (chosen := _choose(_distinct(candidates), image_size)) is not None:
        outer = [a for a in chosen if any(b.name.startswith(f"{a.name}.") for b in chosen)]
        if not outer:
            break
        candidates = [output for output in candidates if output not in outer]
    return chosen


def _without_containers(outputs: Sequence[Output]) -> list[Output]:
    """Return the outputs without those of modules that contain maps of several resolutions."""
    return [
        output
        for output in outputs
        if all(o.side == output.side for o in outputs if o.name.startswith(f"{output.name}."))
    ]


def _distinct(outputs: Sequence[Output]) -> list[Output]:
    """Return one output per value, that of the innermost module, which runs first."""
    return list({output.value: output for output in reversed(outputs)}.values())[::-1]


def _choose(outputs: Sequence[Output], image_size: int) -> list[Output] | None:
    by_side: dict[int, list[Output]] = {}
    for output in outputs:
        by_side.setdefault(output.side, []).append(output)
    by_stride = {2 ** round(math.log2(image_size / side)): side for side in by_side}
    if all(stride in by_stride for stride in STRIDES):
        by_side = {by_stride[stride]: by_side[by_stride[stride]] for stride in STRIDES}
    else:
        early = [side for side in by_side if image_size / side < STRIDES[0] / math.sqrt(2)]
        by_side = {side: group for side, group in by_side.items() if side not in early}
    groups = [group for _, group in sorted(by_side.items(), reverse=True)][-NUM_STAGES:]
    shares = _shares([len(group) for group in groups])
    if shares is None:
        return None
    chosen = [
        group[len(group) * (k + 1) // share - 1]
        for group, share in zip(groups, shares, strict=True)
        for k in range(share)
    ]
    last = groups[-1]
    if last[-1].is_tokens and len(last) > shares[-1]:
        chosen[-1] = last[-2]  # after the last layer patches no longer reach the class token
    return chosen


def _shares(lengths: Sequence[int]) -> list[int] | None:
    """Return the number of stages in each resolution: one, and the rest where most blocks share a stage."""
    if not lengths or sum(lengths) < NUM_STAGES:
        return None
    shares = [1] * len(lengths)
    while sum(shares) < NUM_STAGES:
        free = [k for k, length in enumerate(lengths) if length > shares[k]]
        shares[max(free, key=lambda k: lengths[k] / shares[k])] += 1
    return shares


def _names(chosen: Sequence[Output], outputs: Sequence[Output]) -> tuple[str, ...]:
    """Return the outermost modules with the stages' outputs that contain no other stage, in the order of their run."""
    names, order = [], [output.name for output in outputs]
    for stage in chosen:
        others = [output.name for output in chosen if output is not stage]
        equal = [o.name for o in outputs if o.value is stage.value and o.num_paths == stage.num_paths]
        outer = [name for name in equal if f"{stage.name}.".startswith(f"{name}.")]
        free = [name for name in outer if not any(other.startswith(f"{name}.") for other in others)]
        names.append(min(free, key=len))
    return tuple(sorted(names, key=order.index))


def _outputs(network: nn.Module, image_size: int) -> list[Output]:
    """Return the maps that modules return once on the way to the logits, in the order in which the modules end."""
    errors = []
    for device in dict.fromkeys((torch.device("meta"), next(network.parameters()).device)):
        try:
            return _outputs_on(network, image_size, device)
        except (
            Exception
        ) as error:  # caused by the meta device or by the network; the network's device decides
            errors.append(error)
    raise errors[-1]


def _outputs_on(network: nn.Module, image_size: int, device: torch.device) -> list[Output]:
    network = _copy(network, device).eval()
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    images = torch.zeros(
        NUM_IMAGES, 3, image_size, image_size, device=device, dtype=dtype, requires_grad=True
    )
    shapes: dict[str, list[Sequence[int] | None]] = {}
    nodes: dict[str, Any] = {}

    def hook(name: str, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None or tensor.ndim not in (3, 4) or tensor.shape[0] != NUM_IMAGES:
            shapes.setdefault(name, []).append(None)
            return None
        shapes.setdefault(name, []).append(tensor.shape)
        # The copy gives each output a node of its own, which is on a path only if later layers read the output.
        own = tensor.clone()
        nodes[name] = own.grad_fn
        return with_first_tensor(output, own)

    for name, module in network.named_modules():
        if name:
            module.register_forward_hook(lambda _m, _a, output, n=name: hook(n, output))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        logits = network(images)
    if not isinstance(logits, Tensor) or logits.grad_fn is None:
        return []
    num_paths, total = _num_paths(logits.grad_fn)
    modules, num_prefix = dict(network.named_modules()), getattr(network, "num_prefix_tokens", None)
    values: dict[Any, Any] = {}
    outputs = []
    for name, (shape, *more) in shapes.items():
        node = nodes.get(name)
        if node is None:
            continue
        previous = node.next_functions[0][0]
        values[node] = values.get(previous, node)
        side = None if shape is None or more else _side(shape, num_prefix)
        if shape is not None and side is not None and node in num_paths:
            is_block, num = sum(p.ndim > 1 for p in modules[name].parameters()) > 1, num_paths[node]
            is_tokens, is_nhwc = len(shape) == 3, len(shape) == 4 and shape[2] != shape[3]
            outputs.append(Output(name, side, is_tokens, is_nhwc, is_block, num == total, num, values[node]))
    return outputs


def _copy(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy whose weights need no gradient, so that the graph has the paths from the image alone.

    A copy on the meta device takes no memory; one on the network's device shares the parameters. A pass through a copy
    leaves nothing in the network, such as cached positions.
    """
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        values = parameter.detach() if device.type != "meta" else torch.empty_like(parameter, device=device)
        memo[id(parameter)] = nn.Parameter(values, requires_grad=False)
    if device.type == "meta":
        memo |= {id(buffer): torch.empty_like(buffer, device=device) for buffer in network.buffers()}
    return copy.deepcopy(network, memo)


def _side(shape: Sequence[int], num_prefix_tokens: int | None) -> int | None:
    """Return the side of a stage's square map of more than one pixel; None for other shapes."""
    if len(shape) == 3:
        side = grid_side(shape[1], num_prefix_tokens)
    elif shape[2] == shape[3]:
        side = shape[2]
    elif shape[1] == shape[2]:
        side = shape[1]
    else:
        return None
    return side if side > 1 else None


def _num_paths(end: Any) -> tuple[dict[Any, int], int]:
    """Return the number of paths from `end` to the image through each node that lies on one, and of all paths."""
    order = _topological(end)
    before: dict[Any, int] = {}
    for node in reversed(order):
        inputs = [other for other, _ in node.next_functions if other is not None]
        before[node] = sum(before[other] for other in inputs) if inputs else int(_is_leaf(node))
    after = dict.fromkeys(order, 0)
    after[end] = 1
    for node in order:
        for other, _ in node.next_functions:
            if other is not None:
                after[other] += after[node]
    return {node: after[node] * before[node] for node in order if before[node]}, before[end]


def _is_leaf(node: Any) -> bool:
    return node.name().endswith("AccumulateGrad")


def _topological(end: Any) -> list[Any]:
    """Return the nodes that `end` depends on, each before the nodes that it depends on."""
    finished: list[Any] = []
    seen = {end}
    stack: list[tuple[Any, Iterator[Any]]] = [(end, iter(end.next_functions))]
    while stack:
        node, inputs = stack[-1]
        for other, _ in inputs:
            if other is not None and other not in seen:
                seen.add(other)
                stack.append((other, iter(other.next_functions)))
                break
        else:
            finished.append(node)
            stack.pop()
    return finished[::-1]
