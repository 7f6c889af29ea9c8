"""Maps the operators' tests draw, and how they compare results."""

import torch
from torch import Tensor


def draw_maps(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """h after a ReLU, a and a gradient, from their own generator; the first channel of h is dead."""
    generator = torch.Generator().manual_seed(seed)
    h, a, g = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    h = h.relu()
    if shape[1] > 1:
        h[:, 0] = 0.0
    h, a, g = (x.to(dtype).to(device) for x in (h, a, g))
    return h, a, g


def relative(x: Tensor, exact: Tensor) -> float:
    """||x - exact|| / ||exact|| in float64, on the CPU; the plain norm where `exact` is zero."""
    x, exact = x.detach().double().cpu(), exact.detach().double().cpu()
    norm = exact.norm()
    return float((x - exact).norm() / (norm if norm > 0 else 1.0))


def cosine(x: Tensor, exact: Tensor) -> float:
    """Cosine between two gradients, in float64."""
    x, exact = x.detach().double().cpu().flatten(), exact.detach().double().cpu().flatten()
    return float(x @ exact / (x.norm() * exact.norm()))
