"""BatchNorms folded into the convolutions before them, for networks that only compute.

With the running statistics m and v, BatchNorm is linear: its scale s = weight / sqrt(v + eps) goes into the filters,
and bias - m s into the bias of the convolution. The copy has other parameters than the network, so checkpoints do not
hold the copy.
"""

from __future__ import annotations

from copy import deepcopy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fourds_dist.models.norm_fusion import own_activation
from fourds_dist.models.shallow_graph import has_hooks, shallow_graph


def with_folded_norms(network: nn.Module) -> tuple[nn.Module, int]:
    """Return a copy of a frozen network with BatchNorms folded into convolutions, and their number.

    A BatchNorm is folded if it alone reads the result of a convolution; others stay. Call this before
    `cast_frozen_weights`: filters in bfloat16 would be rounded twice.

    Raises:
        ValueError: a parameter that learns, or a BatchNorm that normalises by the batch.
    """
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            raise ValueError(
                f"the parameter {name} learns; fold BatchNorm only in a frozen network (requires_grad_(False))"
            )
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise ValueError(
                f"the BatchNorm {name} normalises by the batch; fold it only in evaluation mode (network.eval()), with "
                "running statistics"
            )
    copy = deepcopy(network)
    return copy, sum(_fold(module) for module in list(copy.modules()))


def _fold(module: nn.Module) -> int:
    graph = shallow_graph(module)
    if graph is None:
        return 0
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    pairs = [(node.args[0], node) for node in graph.nodes if _norm(module, node) is not None]
    num = 0
    for before, node in pairs:
        norm, convolution = _norm(module, node), _convolution(module, before)
        if norm is None or convolution is None or len(before.users) != 1:
            continue
        if any(calls.count(str(n.target)) != 1 for n in (before, node)):
            continue
        folded = fuse_conv_bn_eval(convolution, norm).requires_grad_(False)
        activation = [
            part for part in norm.children() if type(part) is not nn.Identity
        ]  # of timm's BatchNormAct2d
        _set(module, str(before.target), folded)
        _set(module, str(node.target), activation[0] if activation else nn.Identity())
        num += 1
    return num


def _norm(module: nn.Module, node: fx.Node) -> nn.BatchNorm2d | None:
    """Return the BatchNorm that a node calls on another node's result."""
    if (
        node.op != "call_module"
        or len(node.args) != 1
        or node.kwargs
        or not isinstance(node.args[0], fx.Node)
    ):
        return None
    layer = module.get_submodule(str(node.target))
    if not isinstance(layer, nn.BatchNorm2d) or own_activation(layer) is None or has_hooks(layer):
        return None
    return layer


def _convolution(module: nn.Module, node: fx.Node) -> nn.Conv2d | None:
    if node.op != "call_module":
        return None
    layer = module.get_submodule(str(node.target))
    return layer if isinstance(layer, nn.Conv2d) and not has_hooks(layer) else None


def _set(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)
