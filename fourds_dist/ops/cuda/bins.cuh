// Operations on one bin of the spectrum. `eager.py` has the formulas, with the same names.
//
// The even-sized kernels compute twice the spectrum, which saves the halvings: SPECTRUM_SCALE = 2, and the thresholds of
// d(v) (Eq. 1) have the same scale. Comparisons propagate NaN.

constexpr float EPS_RE = SPECTRUM_SCALE * 1e-5f;                      // for d(Re X)
constexpr float EPS_POWER = SPECTRUM_SCALE * SPECTRUM_SCALE * 1e-5f;  // for d(|X|^2)

struct Bin {
    float re, im;
};

__device__ __forceinline__ float away_from_zero(float v) { return fabsf(v) < EPS_RE ? EPS_RE : v; }
__device__ __forceinline__ float power(Bin x) { return x.re * x.re + x.im * x.im; }
__device__ __forceinline__ float at_least(float v, float low) { return v < low ? low : v; }

__device__ __forceinline__ float amplitude(Bin a) { return sqrtf(at_least(power(a), EPS_POWER)); }

// fourier_mix: amp u. The kernels scale the two weights, and therefore all results that are linear in them.
__device__ __forceinline__ Bin mix(Bin x, float amplitude_a, float w0, float w1) {
    const float re = away_from_zero(x.re);
    const float factor = (w0 * amplitude_a + w1 * amplitude(x)) * rsqrtf(re * re + x.im * x.im);
    return {re * factor, x.im * factor};
}

struct MixGradient {
    Bin x, a;         // to the spectra of h and a
    float p_al, p_m;  // this bin's shares of the gradients to w0 and w1: not scaled
};

__device__ __forceinline__ MixGradient mix_gradient(Bin g, Bin x, Bin a, float w0, float w1) {
    const float power_x = power(x), power_a = power(a);
    const float kept_x = at_least(power_x, EPS_POWER), kept_a = at_least(power_a, EPS_POWER);
    const float inverse_m = rsqrtf(kept_x), inverse_al = rsqrtf(kept_a);
    const float m = kept_x * inverse_m, al = kept_a * inverse_al;
    const float re = away_from_zero(x.re);
    const float inverse_length = rsqrtf(re * re + x.im * x.im);
    const float u_re = re * inverse_length, u_im = x.im * inverse_length;
    const float p = g.re * u_re + g.im * u_im, q = g.im * u_re - g.re * u_im;
    const float along_a = power_a < EPS_POWER ? 0.f : w0 * p * inverse_al;
    const float along_x = power_x < EPS_POWER ? 0.f : w1 * p * inverse_m;
    const float across = q * (w0 * al + w1 * m) * inverse_length;
    const float across_re = fabsf(x.re) < EPS_RE ? 0.f : across * u_im;
    return {{along_x * x.re - across_re, along_x * x.im + across * u_re},
            {along_a * a.re, along_a * a.im},
            p * al,
            p * m};
}

// pooled_phase: atan2(Im X, d(Re X)); a polynomial on [0, 1] (error below 2 ulp), then the octant.
__device__ __forceinline__ float phase(Bin x) {
    const float re = away_from_zero(x.re);
    const float ax = fabsf(re), ay = fabsf(x.im);
    const float high = fmaxf(ax, ay), t = fminf(ax, ay) / high, s = t * t;
    float r = 2.78569828e-3f;
    r = r * s - 1.58660226e-2f;
    r = r * s + 4.24722321e-2f;
    r = r * s - 7.49753043e-2f;
    r = r * s + 1.06448799e-1f;
    r = r * s - 1.42070308e-1f;
    r = r * s + 1.99934542e-1f;
    r = r * s - 3.33331466e-1f;
    r = r * s * t + t;
    r = ay > ax ? float(PI / 2) - r : r;
    r = re < 0.f ? float(PI) - r : r;
    r = copysignf(r, x.im + 0.f);  // -0 counts as +0
    return re + x.im == re + x.im ? r : re + x.im;  // NaN passes
}

// The phase of the mirrored bin: where Im X = 0 both are 0 or pi.
__device__ __forceinline__ float mirrored(float phi, Bin x) { return x.im == 0.f ? phi : -phi; }

// The phase of a real bin: 0, or pi where it is negative.
__device__ __forceinline__ float real_phase(float re) {
    const float kept = away_from_zero(re);
    return kept < 0.f ? float(PI) : kept * 0.f;
}

// Gradient of g phi with respect to the bin.
__device__ __forceinline__ Bin phase_gradient(float g, Bin x) {
    const float re = away_from_zero(x.re);
    const float tau = g / (re * re + x.im * x.im);
    return {fabsf(x.re) < EPS_RE ? 0.f : -tau * x.im, tau * re};
}

// phase_distance: |T| - Re(S conj T) / |S|.
__device__ __forceinline__ float disparity(Bin s, Bin t) {
    return sqrtf(power(t)) - (s.re * t.re + s.im * t.im) * rsqrtf(at_least(power(s), EPS_POWER));
}

__device__ __forceinline__ Bin disparity_gradient(Bin s, Bin t, float scale) {
    const float power_s = power(s);
    const float inverse = rsqrtf(at_least(power_s, EPS_POWER));
    const float away = -inverse * scale;
    const float across = (s.re * t.im - s.im * t.re) * inverse * inverse * inverse * scale;
    return power_s < EPS_POWER ? Bin{t.re * away, t.im * away} : Bin{s.im * across, -s.re * across};
}
