"""fourds_dist: Direct Distillation between Different Domains (4Ds, arXiv 2401.06826) on clusters.

The Python API; each name is imported at its first use:

    fit            run all stages of a configuration; return the finished run
    load_student   load the student of a run, a checkpoint or a file for prediction
    Run            the folder of a run, for reading
    FourDs         the method as a module: a batch in, named losses out
    FourierAdapter, fourier_mix, phase_distance, pooled_phase   operators of the method

>>> import torch
>>> from fourds_dist import FourierAdapter, fourier_mix, phase_distance
>>> h = torch.randn(2, 8, 7, 7)                      # a teacher's feature maps
>>> learnt = torch.randn(2, 8, 7, 7)                 # the output of an adapter
>>> mixed = fourier_mix(h, learnt, torch.tensor([0.5, 0.5]))
>>> phases = [torch.fft.fft2(x).angle() for x in (h, mixed)]
>>> bool((phases[0] - phases[1]).cos().mean() > 0.99)       # the teacher's phase
True
>>> bool((phase_distance(h, 3 * h) < 1e-4).all())          # amplitude does not change phase
True
>>> FourierAdapter(8)(h).shape
torch.Size([2, 8, 7, 7])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fourds_dist.io.version import __version__ as __version__

if TYPE_CHECKING:
    from fourds_dist.api import fit
    from fourds_dist.inference.loading import load_student
    from fourds_dist.method import FourDs
    from fourds_dist.method.adapter import FourierAdapter
    from fourds_dist.ops import fourier_mix, phase_distance, pooled_phase
    from fourds_dist.stages.finished_run import Run


__all__ = [
    "FourDs",
    "FourierAdapter",
    "Run",
    "fit",
    "fourier_mix",
    "load_student",
    "phase_distance",
    "pooled_phase",
]

_HOMES = {
    "api": ("fit",),
    "method": ("FourDs",),
    "method.adapter": ("FourierAdapter",),
    "ops": ("fourier_mix", "phase_distance", "pooled_phase"),
    "stages.finished_run": ("Run",),
    "inference.loading": ("load_student",),
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import fourds_dist` is fast and needs no PyTorch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
