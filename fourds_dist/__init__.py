"""fourds_dist: Direct Distillation between Different Domains (4Ds, arXiv 2401.06826) on clusters.

For notebooks and programs, a handful of names; each is imported when it is first asked for:

    fit            runs all stages as configured; gives the finished run
    load_student   the student of a run, a checkpoint or a file, ready to look at images
    Run            a run's folder, read back
    FourDs         the method as a module: a batch in, named losses out
    FourierAdapter, fourier_mix, phase_disparity, pooled_phase   its operators

>>> import torch
>>> from fourds_dist import FourierAdapter, fourier_mix, phase_disparity
>>> h = torch.randn(2, 8, 7, 7)                      # a teacher's feature maps
>>> learnt = torch.randn(2, 8, 7, 7)                 # what an adapter makes of them
>>> mixed = fourier_mix(h, learnt, torch.tensor([0.5, 0.5]))
>>> phases = [torch.fft.fft2(x).angle() for x in (h, mixed)]
>>> bool((phases[0] - phases[1]).cos().mean() > 0.99)       # the phase is the teacher's own
True
>>> bool((phase_disparity(h, 3 * h) < 1e-4).all())          # amplitude alone is no disparity
True
>>> FourierAdapter(8)(h).shape
torch.Size([2, 8, 7, 7])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourds_dist.api import fit
    from fourds_dist.method import FourDs
    from fourds_dist.method.adapter import FourierAdapter
    from fourds_dist.ops import fourier_mix, phase_disparity, pooled_phase
    from fourds_dist.results.loading import load_student
    from fourds_dist.results.run import Run

__version__ = "0.1.0"

__all__ = [
    "FourDs",
    "FourierAdapter",
    "Run",
    "fit",
    "fourier_mix",
    "load_student",
    "phase_disparity",
    "pooled_phase",
]

_HOMES = {
    "api": ("fit",),
    "method": ("FourDs",),
    "method.adapter": ("FourierAdapter",),
    "ops": ("fourier_mix", "phase_disparity", "pooled_phase"),
    "results.run": ("Run",),
    "results.loading": ("load_student",),
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are asked for: `import fourds_dist` takes no time, and needs no PyTorch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
