"""Networks whose BatchNorms compute the residual sum and the activation after them too (`step.norm`).

    conv -> BatchNorm -> ReLU                    conv -> BatchNorm with ReLU
    conv -> BatchNorm -> (+ shortcut) -> ReLU    conv -> BatchNorm with shortcut and ReLU

The graph of each module (`shallow_graph.py`) shows which BatchNorm is followed by what. Only the classes of modules
change; parameters, names, hooks and the state dict stay. A module with hooks runs by itself, also if the hooks come
later: its block then runs as written. Modules without a graph run as written, with BatchNorms that are faster alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fourds_dist.models.memory_saving import MemorySavingReLU
from fourds_dist.models.shallow_graph import forward_of, has_hooks, is_inlined, shallow_graph
from fourds_dist.ops.norm import batch_norm_act

MODULES = {
    nn.ReLU: "relu",
    MemorySavingReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardswish: "hardswish",
    nn.SiLU: "silu",
    nn.Identity: "none",
}
FUNCTIONS = {
    F.relu: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu6: "relu6",
    F.hardswish: "hardswish",
    F.silu: "silu",
}
METHODS = {"relu": "relu", "relu_": "relu"}
SUMS = (operator.add, operator.iadd, torch.add)


class FusedNorms(NamedTuple):
    """Numbers of BatchNorms in a task."""

    total: int
    replaced: int
    """Those that run as `ops.norm.batch_norm_act`."""
    with_more: int
    """Those that compute an activation or a residual sum too."""


class FusedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm with a residual sum and an activation; without both it is nn.BatchNorm2d."""

    activation = "none"

    def forward(self, input: Tensor, residual: Tensor | None = None, activation: str | None = None) -> Tensor:
        self._check_input_dim(input)
        tracks = not self.training or self.track_running_stats
        return batch_norm_act(
            input,
            self.running_mean if tracks else None,
            self.running_var if tracks else None,
            self.weight,
            self.bias,
            residual=residual,
            activation=activation or self.activation,
            training=self.training or (self.running_mean is None and self.running_var is None),
            momentum=self.momentum,
            num_batches=self.num_batches_tracked if self.track_running_stats else None,
            eps=self.eps,
        )


class Plan(NamedTuple):
    """How a block runs with its BatchNorms fused."""

    forward: Callable[[nn.Module, Any], Any]
    takes_list: bool
    absorbed: tuple[nn.Module, ...]
    """Modules that the function does not call, or calls with another meaning."""


class WithFusedNorms(nn.Module):
    """A block that runs by its plan, or as written if an absorbed module has hooks."""

    _norm_plan: Plan

    def forward(self, *args: Any, **options: Any) -> Any:
        plan = self._norm_plan
        is_usual = len(args) == 1 and not options and isinstance(args[0], Tensor) != plan.takes_list
        if is_usual and not any(map(has_hooks, plan.absorbed)):
            return plan.forward(self, args[0])
        return super().forward(*args, **options)


def fuse_norms(task: nn.Module) -> FusedNorms:
    """Fuse the BatchNorms of a task's networks with what follows them; return how many.

    Call this after `save_activation_memory` and before `checkpoint_blocks`, when all hooks are registered. A second
    call finds the same again.
    """
    with_more = sum(_fuse(network) for network in task.children())
    norms = [module for module in task.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        _replace(norm)
    replaced = sum(isinstance(norm, FusedBatchNorm2d) for norm in norms)
    own = sum(isinstance(norm, FusedBatchNorm2d) and norm.activation != "none" for norm in norms)
    return FusedNorms(len(norms), replaced, with_more + own)


def own_activation(module: nn.Module) -> str | None:
    """Return the activation inside a BatchNorm ("none" in PyTorch's); None for other modules and other activations."""
    if isinstance(module, FusedBatchNorm2d):
        return module.activation
    if type(module) is nn.BatchNorm2d:
        return "none"
    if type(module).__name__ == "BatchNormAct2d" and isinstance(module, nn.BatchNorm2d):  # of timm
        parts = list(module.children())
        names = [MODULES.get(type(part)) for part in parts]
        used = {name for name in names if name != "none"} or {"none"}
        return used.pop() if len(used) == 1 and not any(map(has_hooks, parts)) else None
    return None


def _replace(norm: nn.BatchNorm2d) -> None:
    activation = own_activation(norm)
    if activation is not None and not isinstance(norm, FusedBatchNorm2d):
        kind = type(norm)
        norm.__class__ = FusedBatchNorm2d if kind is nn.BatchNorm2d else _fused_norm(kind)
        norm.activation = activation  # pyright: ignore[reportArgumentType]


@cache
def _fused_norm(kind: type[nn.BatchNorm2d]) -> type[nn.BatchNorm2d]:
    return type(f"Fused{kind.__name__}", (FusedBatchNorm2d, kind), {})


@cache
def _fused_block(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Fused{kind.__name__}", (WithFusedNorms, kind), {})


def _fuse(module: nn.Module) -> int:
    """Fuse in a module and all below; return the number of BatchNorms that compute more."""
    if isinstance(module, nn.BatchNorm2d) or not any(isinstance(m, nn.BatchNorm2d) for m in module.modules()):
        return 0
    if WithFusedNorms in type(module).__bases__:  # of an earlier call; hooks may have come since
        module.__class__ = type(module).__bases__[1]
    graph, num = shallow_graph(module), 0
    if graph is not None and (num := _rewrite(module, graph)):
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        takes_list = any(user.target is torch.cat and user.args[0] is inputs[0] for user in inputs[0].users)
        called = {module.get_submodule(str(node.target)) for node in graph.nodes if _is_plain_call(node)}
        absorbed = tuple(part for part in _inside(module) if part not in called)
        module._norm_plan = Plan(forward_of(module, graph), takes_list, absorbed)  # pyright: ignore
        module.__class__ = _fused_block(type(module))
    return num + sum(map(_fuse, _below(module) if num else module.children()))


def _is_plain_call(node: fx.Node) -> bool:
    return node.op == "call_module" and not node.kwargs


def _inside(module: nn.Module) -> list[nn.Module]:
    """Return the modules of a module's graph: its submodules, and those of inlined ones."""
    found = []
    for child in module.children():
        found += [child, *(_inside(child) if is_inlined(child) else ())]
    return found


def _below(module: nn.Module) -> list[nn.Module]:
    """Return the submodules that have graphs of their own beside a module's graph."""
    return [part for part in _inside(module) if not is_inlined(part)]


def _rewrite(module: nn.Module, graph: fx.Graph) -> int:
    """Move sums and activations into the BatchNorms before them; return the number of such BatchNorms."""
    for node in list(graph.nodes):
        if _called(module, node, nn.Identity) and len(node.args) == 1:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    return sum(_absorb(module, graph, node) for node in list(graph.nodes) if _is_plain_call(node))


def _absorb(module: nn.Module, graph: fx.Graph, norm: fx.Node) -> bool:
    """Let a BatchNorm's node compute the sum and the activation that are the only users of its result."""
    layer = module.get_submodule(str(norm.target))
    if own_activation(layer) != "none" or has_hooks(layer) or len(norm.args) != 1:
        return False
    place, last, more = norm, norm, {}
    user = _only_user(norm)
    residual = _other_summand(norm, user)
    # The BatchNorm runs later then, so nothing else may change its input in between.
    if user is not None and residual is not None and len(norm.all_input_nodes[0].users) == 1:
        more["residual"] = residual
        place, last, user = user, user, _only_user(user)
    activation = _activation(module, last, user)
    if user is not None and activation is not None:
        more["activation"], last = activation, user
    if not more:
        return False
    with graph.inserting_before(place):
        fused = graph.call_module(str(norm.target), norm.args, more)
    last.replace_all_uses_with(fused)
    while last is not norm:
        graph.erase_node(last)
        last = norm if not norm.users else next(iter(norm.users))
    graph.erase_node(norm)
    return True


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _other_summand(norm: fx.Node, node: fx.Node | None) -> fx.Node | None:
    """Return what a node adds to a BatchNorm's result; None if the node is no sum of two tensors."""
    if node is None or node.op != "call_function" or node.target not in SUMS or node.kwargs:
        return None
    others = [x for x in node.args if x is not norm]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None


def _activation(module: nn.Module, before: fx.Node, node: fx.Node | None) -> str | None:
    """Return the activation that a node applies to the result of `before`; None if the node is no activation."""
    if node is None or node.args != (before,) or set(node.kwargs) - {"inplace"}:
        return None
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        return None if has_hooks(layer) else MODULES.get(type(layer))
    known: dict[Any, str] = {"call_function": FUNCTIONS, "call_method": METHODS}.get(node.op, {})
    return known.get(node.target)


def _called(module: nn.Module, node: fx.Node, kind: type[nn.Module]) -> bool:
    """Whether a node calls a submodule of a class, without hooks."""
    if node.op != "call_module":
        return False
    layer = module.get_submodule(str(node.target))
    return type(layer) is kind and not has_hooks(layer)
