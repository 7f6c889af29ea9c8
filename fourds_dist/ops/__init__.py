"""The Fourier operators of the method: its adapters, its phases, its mended phase loss.

    from fourds_dist.ops import fourier_mix, pooled_phase, phase_disparity

    out = fourier_mix(h, a, w)             # amplitudes mixed, the phase of h kept
    P = pooled_phase(h, (7, 7))            # mean phases over the cells of a pool
    d = phase_disparity(h_student, h_teacher)

`operators.py` holds them, `backends.py` says who computes them, `reference.py` is the released form and the oracle of
the tests, `eager.py` the half spectrum (its transforms in `half_spectrum.py`, by `matrices.py`), `fused.py` and `cuda/`
the kernels, `nvrtc.py` how those are compiled and launched; `lean.py`, beside them, has layers of ordinary networks
that keep less for their gradients. `python -m fourds_dist.benchmark ops` measures all of it
against copies of the same bytes.

For whoever maintains the kernels
---------------------------------
Two numbers, at 64x56x56, batch 128, float32: forward and backward must move eight tensors, which takes 0.28 ms in
copies; eight 2-D transforms and the pointwise work are about 28,000 warp instructions a map, 0.25 ms if every scheduler
issued one a cycle. So the work fits under the bytes, but only just: transforms have to stay in registers (56 = 8 x 7 by
Good and Thomas, no twiddle factors), a map must not leave its warp (one exchange through shared memory each way, no
block-wide barrier), and latencies must be hidden by many such warps.

What was tried, on one H100 80GB HBM3 at batch 128. Times in ms, of the forward and the backward kernel of `fourier_mix`
at 56x56 in float32 where nothing else is said; a dash where nothing was predicted:

    version                                            predicted     measured         verdict
    rfft2 and pointwise passes                         -             5.6 together     kept: `eager`
    transforms in registers, a warp to a map           0.11 / 0.25   0.161 / 0.485    kept; backward: 5 warps an SM
    backward by two warps on the same maps             0.30          0.388            kept from 28x28 up
      the same at 14x14                                -             0.079 for 0.068  dropped: one warp
      five such blocks an SM (1 KB spilled)            0.30          0.588            dropped: four
    bfloat16 rounded by hand (backward)                -             0.717, spills    dropped
      by the conversion instruction, two warps         -             0.340            kept
    7x7: three spectra in registers (backward)         -             0.066            dropped: 182 registers
      that of a in shared memory, 128 registers        0.045         0.048            kept
    fewer registers for the other kernels at 56x56     -             equal or slower  dropped
    lines in shared memory between transforms          -             0.121 / 0.229    kept: five blocks an SM
      in bfloat16 (before: 0.130 / 0.349)              0.12 / 0.24   0.109 / 0.212    kept
        four blocks an SM, more registers              -             0.109 / 0.224    dropped
        pixels not copied ahead (backward)             -             0.215            dropped
        one and the same warp of a block takes G       -             0.219            dropped
        pointwise loops unrolled by 6 / 4              -             0.114 / 0.235    dropped: by 3 / 2
          not unrolled                                 -             0.112 / 0.206    kept for the backward
      at 28x28 (before: 0.064 / 0.151)                 -             0.064 / 0.109    kept: ten blocks an SM
        in bfloat16 (before: 0.051 / 0.144)            -             0.051 / 0.099    kept
      at 14x14, together (before: 0.104)               -             0.104            kept: one source for all sizes
    channels_last, even sizes: PyTorch's copy first    -             0.202 a tensor   dropped (bfloat16)
      a tiled transposition of single elements         0.040         0.072 a tensor   dropped
      of pairs of them                                 0.053         1.02 to 0.85     kept (whole operator)
    channels_last, 7x7: read in place                  -             0.037 together   kept (bfloat16)

What is left: at even sizes in channels_last over two fifths of the time went to transpositions, before the kernels
between them were rebuilt; a kernel that reads such maps in place needs blocks of sixteen channels to use whole memory
sectors, and their planes do not fit one SM at 56x56. The whole operator at 56x56 takes 1.24 times the floor in float32
(before: 1.95) and 2.20 times in bfloat16 (3.28), where half the bytes save only a twelfth of the time. Neither bytes
nor the number of instructions is the limit, but how long a block waits for itself: rebuilt, the backward issues about
as many as before, and yet takes 0.224 ms for 0.349 with four blocks an SM as before; the fifth brings it to 0.212. In
the forward kernel waits for pixels are 4,700 of a block's 35,200 cycles, and 11,000 of 43,100 at 28x28. Each kernel
loops over its passes so that the code of one transform serves all of them; the 56x56 backward written out in line was
not tried, for fear of the instruction cache.

Weighed on paper and left alone; time as a share of a whole step at batch 256 (ResNet34 -> ResNet18), not measured:

    keep the transposed maps for the backward (4 of 13 transpositions)  -0.8 %, +0.6 GiB of some 5.5
    fold the adapter's last BatchNorm into the spectrum                 -0.5 %, its backward by hand
    the last adapter as a mean (only DC reaches the logits)             -0.3 %, takes a pooled head for granted

On a CPU the half spectrum is bound by its transforms, eight of them in `fourier_mix`. One thread, 2^17 pixels, ms:

    forward / inverse at                     7x7            14x14          28x28          56x56
    FFT library, parts split and joined      0.60 / 0.90    0.42 / 0.58    0.34 / 0.57    0.33 / 0.53
      irfft2 for ifft and a product, kept    - / -          - / -          - / 0.35       - / 0.33
    one dense product a map                  0.25 / 0.21    0.59 / 0.61    -              -                dropped
    products for rows and columns, maps last 0.18 / 0.25    0.24 / 0.33    0.42 / 0.52    0.58 / 0.65      kept to 16x16

The denormal rule by masks took as long there as nine other passes (comparison and masked_fill, which branch), as a
`lerp` by a mask of numbers it takes three: kept.
"""

from fourds_dist.ops.backends import BACKENDS, choose_backend, use_backend
from fourds_dist.ops.operators import fourier_mix, phase_disparity, pooled_phase

__all__ = ["BACKENDS", "choose_backend", "fourier_mix", "phase_disparity", "pooled_phase", "use_backend"]
