"""Graphs of single modules, in which submodules are nodes: what a block calls, and in which order.

torch.fx runs `forward` with proxies. Sequences of modules without hooks are part of the graph; all other submodules are
nodes, so that their hooks and their code stay as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress

from torch import fx, nn

from fourds_dist.models.network_mode import in_mode

INLINED = ("ConvNormAct",)
"""Classes of timm that run their submodules one after the other."""


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has forward or backward hooks of its own."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def is_inlined(module: nn.Module) -> bool:
    """Whether the graph of a module above has the submodules of this one as nodes."""
    is_sequence = type(module).forward is nn.Sequential.forward or type(module).__name__ in INLINED
    return is_sequence and not has_hooks(module)


def shallow_graph(module: nn.Module) -> fx.Graph | None:
    """Return the graph of a module with one input; None if there is none that holds in every case.

    A graph has no branches. Therefore the module must have the same graph in training and in evaluation mode, and only
    one argument.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())
    if len(parameters) != 1 or parameters[0].kind is inspect.Parameter.VAR_POSITIONAL or not module._modules:
        return None
    graphs: list[fx.Graph] = []
    before = set(vars(module))
    for training in (True, False):
        # A module may refuse proxies with any exception.
        with in_mode(module, training=training), suppress(Exception):
            graphs.append(_Tracer().trace(module))
    constants = set(vars(module)) - before  # tensors that forward creates
    for name in constants:
        delattr(module, name)
    if len(graphs) != 2 or constants:
        return None
    code = [graph.python_code("self").src for graph in graphs]
    return graphs[0] if code[0] == code[1] else None


def forward_of(module: nn.Module, graph: fx.Graph) -> Callable:
    """Return a function with the code of a graph, from a module and its input to its output."""
    graph.lint()
    return type(fx.GraphModule(module, graph)).forward


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not is_inlined(m)
