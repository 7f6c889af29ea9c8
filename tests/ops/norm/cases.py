"""Inputs of batch_norm_act, and its results and gradients beside PyTorch's in float64."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from fourds_dist.ops.norm import ACTIVATIONS, batch_norm_act, fused
from tests.ops.inputs import relative


@dataclass(frozen=True)
class Case:
    """One call of the operator."""

    activation: str = "relu"
    residual: bool = True
    training: bool = True
    affine: bool = True
    learns: bool = True
    """Whether weight and bias need gradients."""
    shape: tuple[int, int, int, int] = (3, 13, 5, 6)
    dtype: torch.dtype = torch.float32
    momentum: float | None = 0.3
    layout: torch.memory_format = torch.channels_last
    seed: int = 0

    def __str__(self) -> str:
        parts = [
            self.activation,
            "x".join(map(str, self.shape)),
            str(self.dtype).removeprefix("torch."),
            *(name for name in ("residual", "training", "affine", "learns") if getattr(self, name)),
        ]
        return "-".join(parts)


MODES = [
    Case(activation, residual, training, affine, learns)
    for activation, residual, training in itertools.product(ACTIVATIONS, (False, True), (False, True))
    for affine, learns in ((True, True), (True, False), (False, False))
]
FEW_MODES = [case for i, case in enumerate(MODES) if i % 3 == i // 3 % 3]
"""One of the three kinds of weights for each activation, residual and mode."""

SHAPES = [
    Case(shape=shape, dtype=dtype, seed=i)
    for dtype in (torch.float32, torch.bfloat16)
    for i, shape in enumerate(
        (
            (2, 1, 1, 1),
            (5, 3, 1, 1),
            (2, 8, 3, 3),
            (1, 16, 7, 7),
            (2, 24, 4, 5),
            (1, 130, 2, 3),
            (3, 200, 1, 2),
            (1, 2, 40, 41),
        )
    )
]


@dataclass
class Inputs:
    """The tensors of a call; every use takes copies."""

    x: Tensor
    residual: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    num_batches: Tensor
    gradient: Tensor


def draw(case: Case, device: str = "cpu") -> Inputs:
    """Draw the tensors of a case, with a mean and a standard deviation of its own in every channel."""
    generator = torch.Generator().manual_seed(case.seed)
    C = case.shape[1]

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    def as_map(x: Tensor) -> Tensor:
        return x.to(case.dtype).to(device).contiguous(memory_format=case.layout)

    spread, centre = normal(C).abs() + 0.3, 2 * normal(C)
    x = normal(*case.shape) * spread[:, None, None] + centre[:, None, None]
    weight, bias = (normal(C).float().to(device) for _ in range(2))
    return Inputs(
        x=as_map(x),
        residual=as_map(normal(*case.shape)) if case.residual else None,
        weight=weight if case.affine else None,
        bias=bias if case.affine else None,
        running_mean=normal(C).float().to(device),
        running_var=(normal(C).abs() + 0.5).float().to(device),
        num_batches=torch.tensor(3, device=device),
        gradient=as_map(normal(*case.shape)),
    )


def results(
    case: Case, inputs: Inputs, backend: str | None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Return the result, the gradients and the running statistics; dtype: of all floating-point tensors."""

    def copy(x: Tensor, needs_grad: bool = False) -> Tensor:
        x = (
            x.detach().clone()
            if dtype is None or not x.is_floating_point()
            else x.detach().to(dtype, copy=True)
        )
        return x.requires_grad_(needs_grad)

    buffers = [copy(b) for b in (inputs.running_mean, inputs.running_var, inputs.num_batches)]
    needs = {"x": True, "residual": True, "weight": case.learns, "bias": case.learns}
    maps = {n: copy(t, needs[n]) for n in needs if (t := getattr(inputs, n)) is not None}
    y = batch_norm_act(
        maps["x"],
        *buffers[:2],
        maps.get("weight"),
        maps.get("bias"),
        residual=maps.get("residual"),
        activation=case.activation,
        training=case.training,
        momentum=case.momentum,
        num_batches=buffers[2],
        backend=backend,
    )
    learnt = {name: t for name, t in maps.items() if t.requires_grad}
    gradients = torch.autograd.grad(y, list(learnt.values()), inputs.gradient.to(y.dtype))
    return {
        "y": y.detach(),
        **{f"gradient of {name}": g for name, g in zip(learnt, gradients, strict=True)},
        **dict(zip(("running mean", "running variance", "batches"), buffers, strict=True)),
    }


def check(case: Case, backend: str, device: str = "cpu") -> None:
    """Compare results of a backend with PyTorch's in float64 on the same inputs."""
    inputs = draw(case, device)
    got, exact = results(case, inputs, backend), results(case, inputs, "reference", torch.float64)
    assert got.keys() == exact.keys()
    low = case.dtype == torch.bfloat16
    for name, x in got.items():
        is_map = name in ("y", "gradient of x", "gradient of residual")
        # Half a unit in the last place of bfloat16; Triton's interpreter does not round, but cuts.
        unit = (2**-7 if fused.is_interpreted() else 2**-8) if low and is_map else 0.0
        bound = unit + (2e-5 if "gradient" in name else 2e-6)
        if name == "gradient of x" and case.training and inputs.x.numel() == 2 * case.shape[1]:
            continue  # two values per channel: the gradient is the difference of equal numbers, of the size of eps
        assert relative(x, exact[name]) < bound, f"{name}: {relative(x, exact[name]):.2e}"
    assert got["batches"] == 3 + case.training
    assert got["y"].dtype == case.dtype
    assert got["y"].is_contiguous(memory_format=case.layout)
