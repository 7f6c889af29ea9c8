"""The Fourier operators of the method: the adapters' mixing, pooled phases, and the circular phase distance.

    from fourds_dist.ops import fourier_mix, pooled_phase, phase_disparity

    out = fourier_mix(h, a, w)             # amplitudes mixed, the phase of h kept       (Eq. 5)
    P = pooled_phase(h, (7, 7))            # mean phases over the cells of a pool        (Eq. 7)
    d = phase_disparity(h_student, h_teacher)                                            (Eq. 11)

`operators.py` holds them, `backends.py` chooses who computes them, `reference.py` is the released form and the oracle
of the tests, `eager.py` the half spectrum (its transforms in `half_spectrum.py`, by `matrices.py`), `fused.py` and
`cuda/` the kernels, `nvrtc.py` compiles and launches those. `lean.py` has layers of ordinary networks that keep less
for their gradients. `python -m fourds_dist.benchmark ops` measures all of it against copies of the same bytes.

README.md describes the design, EXPERIMENTS.md what was tried. Numbers of equations: fourds_dist/method/README.md.
"""

from fourds_dist.ops.backends import BACKENDS, choose_backend, use_backend
from fourds_dist.ops.operators import fourier_mix, phase_disparity, pooled_phase

__all__ = ["BACKENDS", "choose_backend", "fourier_mix", "phase_disparity", "pooled_phase", "use_backend"]
