"""The Fourier operators of the method: the mixing of amplitudes, pooled phases, and the circular phase distance.

    from fourds_dist.ops import fourier_mix, pooled_phase, phase_distance

    out = fourier_mix(h, a, w)             # mixed amplitudes, phase of h                (Eq. 5)
    P = pooled_phase(h, (7, 7))            # mean phases over the cells of a pool        (Eq. 7)
    d = phase_distance(h_student, h_teacher)                                            (Eq. 11)

`operators.py` defines the operators and `backends.py` selects the backend: `reference.py` (the released form, which
tests compare with), `eager.py` (the half spectrum) or `fused.py` (the kernels in `cuda/`). `python -m
fourds_dist.benchmark ops` compares the operators with copies of the same bytes. README.md describes the design,
EXPERIMENTS.md the experiments, fourds_dist/method/README.md the equations.
"""

from fourds_dist.ops.backends import BACKENDS, choose_backend, use_backend
from fourds_dist.ops.operators import fourier_mix, phase_distance, pooled_phase

__all__ = ["BACKENDS", "choose_backend", "fourier_mix", "phase_distance", "pooled_phase", "use_backend"]
