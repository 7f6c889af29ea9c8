"""The Fourier operators of the method: its adapters, its phases, its mended phase loss.

from fourds_dist.ops import fourier_mix, pooled_phase, phase_disparity
"""

from fourds_dist.ops.backends import BACKENDS, choose_backend, use_backend
from fourds_dist.ops.operators import fourier_mix, phase_disparity, pooled_phase

__all__ = ["BACKENDS", "choose_backend", "fourier_mix", "phase_disparity", "pooled_phase", "use_backend"]
