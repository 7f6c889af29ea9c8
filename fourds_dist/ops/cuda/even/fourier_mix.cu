// fourier_mix on even maps. Six transforms forward, ten backward, of one line to a lane each.

extern "C" __global__ void __launch_bounds__(32) fourier_mix(
    const stored* h, const stored* a, const float* weights, stored* out, int num_maps) {
    extern __shared__ float4 shared[];
    float4* plane = shared;
    float* amplitudes = reinterpret_cast<float*>(shared + PLANE) + threadIdx.x;  // |A| of this lane's row
    const Lane lane(num_maps);
    const float w0 = weights[0], w1 = weights[1];
    Line z = {};

#pragma unroll 1
    for (int pass = 0; pass < 6; ++pass) {
        if (pass == 0) load_columns(z, a, lane);
        if (pass == 2) load_columns(z, h, lane);
        if (pass == 1 || pass == 3) load_row(z, plane, lane);
        if (pass == 5) rows_to_columns_exchanged(z, plane, lane);
        dft<N>(z.re, z.im);
        if (pass == 0 || pass == 2) columns_to_rows(z, plane, lane);
        if (pass == 1) {
            take_apart(z, lane);
#pragma unroll
            for (int l = 0; l < N; ++l) amplitudes[32 * l] = amplitude({z.re[l], z.im[l]});
            if (lane.row == 0) {  // real bins: those of row N/2 in two extra places
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    amplitudes[32 * i * ROWS] = amplitude({z.re[i * ROWS], 0.f});
                    amplitudes[32 * (N + i)] = amplitude({z.im[i * ROWS], 0.f});
                }
            }
        }
        if (pass == 3) {
            take_apart(z, lane);
            const float first[2] = {z.re[0], z.im[0]}, middle[2] = {z.re[ROWS], z.im[ROWS]};
#pragma unroll
            for (int l = 0; l < N; ++l) {
                const Bin y = mix({z.re[l], z.im[l]}, amplitudes[32 * l], w0, w1, FULL_SCALE);
                z.re[l] = y.re, z.im[l] = y.im;
            }
            if (lane.row == 0) {
                z.re[0] = mix({first[0], 0.f}, amplitudes[0], w0, w1, FULL_SCALE).re;
                z.im[0] = mix({first[1], 0.f}, amplitudes[32 * N], w0, w1, FULL_SCALE).re;
                z.re[ROWS] = mix({middle[0], 0.f}, amplitudes[32 * ROWS], w0, w1, FULL_SCALE).re;
                z.im[ROWS] = mix({middle[1], 0.f}, amplitudes[32 * (N + 1)], w0, w1, FULL_SCALE).re;
            }
            put_together_exchanged(z, lane);
        }
        if (pass == 5) store_columns_exchanged(z, out, lane);
    }
}

// Gradients to h, a and, one partial sum of each for every warp, to the two weights.
extern "C" __global__ void __launch_bounds__(32) fourier_mix_backward(
    const stored* g, const stored* h, const stored* a, const float* weights, stored* grad_h, stored* grad_a,
    float* partial_sums, int num_maps, int need_h, int need_a) {
    extern __shared__ float4 shared[];
    float4 *plane_a = shared, *plane_h = shared + PLANE, *plane_g = shared + 2 * PLANE;
    const Lane lane(num_maps);
    const float w0 = weights[0], w1 = weights[1];
    Line z = {};
    float sum_al = 0.f, sum_m = 0.f;

#pragma unroll 1
    for (int pass = 0; pass < 10; ++pass) {
        if (pass == 6 && !need_h) pass = 8;
        if (pass == 8 && !need_a) break;
        float4* plane = pass < 2 || pass >= 8 ? plane_a : pass < 4 ? plane_h : plane_g;
        if (pass == 0) load_columns(z, a, lane);
        if (pass == 2) load_columns(z, h, lane);
        if (pass == 4) load_columns(z, g, lane);
        if (pass == 1 || pass == 3 || pass == 5 || pass == 8) load_row(z, plane, lane);
        if (pass == 8) put_together_exchanged(z, lane);
        if (pass == 7 || pass == 9) rows_to_columns_exchanged(z, plane, lane);
        dft<N>(z.re, z.im);
        if (pass == 0 || pass == 2 || pass == 4) columns_to_rows(z, plane, lane);
        if (pass == 1 || pass == 3 || pass == 5) take_apart(z, lane);
        if (pass == 1 || pass == 3) store_row(z, plane, lane);
        if (pass == 5) {
            if (lane.active) {
                float4 *row_a = lane.own_row(plane_a), *row_h = lane.own_row(plane_h);
#pragma unroll
                for (int i = 0; i < ROWS; ++i) {
                    const float4 x = row_h[i];
                    float4 y = row_a[i];
                    Bin g0 = {z.re[2 * i], z.im[2 * i]}, x0 = {x.x, x.y}, a0 = {y.x, y.y};
                    Bin g1 = {z.re[2 * i + 1], z.im[2 * i + 1]}, x1 = {x.z, x.w}, a1 = {y.z, y.w};
                    MixGradient d0, d1;
                    if (lane.row == 0 && (2 * i == 0 || 2 * i == ROWS)) {
                        const MixGradient re = mix_gradient({g0.re, 0}, {x0.re, 0}, {a0.re, 0}, w0, w1, FULL_SCALE);
                        const MixGradient im = mix_gradient({g0.im, 0}, {x0.im, 0}, {a0.im, 0}, w0, w1, FULL_SCALE);
                        d0 = {{re.x.re, im.x.re},
                              {re.a.re, im.a.re},
                              0.5f * (re.p_al + im.p_al),
                              0.5f * (re.p_m + im.p_m)};
                    } else {
                        d0 = mix_gradient(g0, x0, a0, w0, w1, FULL_SCALE);
                    }
                    if (lane.row == 0 && 2 * i + 1 == ROWS) {
                        const MixGradient re = mix_gradient({g1.re, 0}, {x1.re, 0}, {a1.re, 0}, w0, w1, FULL_SCALE);
                        const MixGradient im = mix_gradient({g1.im, 0}, {x1.im, 0}, {a1.im, 0}, w0, w1, FULL_SCALE);
                        d1 = {{re.x.re, im.x.re},
                              {re.a.re, im.a.re},
                              0.5f * (re.p_al + im.p_al),
                              0.5f * (re.p_m + im.p_m)};
                    } else {
                        d1 = mix_gradient(g1, x1, a1, w0, w1, FULL_SCALE);
                    }
                    z.re[2 * i] = d0.x.re, z.im[2 * i] = d0.x.im;
                    z.re[2 * i + 1] = d1.x.re, z.im[2 * i + 1] = d1.x.im;
                    row_a[i] = make_float4(d0.a.re, d0.a.im, d1.a.re, d1.a.im);
                    sum_al += d0.p_al + d1.p_al, sum_m += d0.p_m + d1.p_m;
                }
            }
            put_together_exchanged(z, lane);
        }
        if (pass == 7) store_columns_exchanged(z, grad_h, lane);
        if (pass == 9) store_columns_exchanged(z, grad_a, lane);
    }

    float* scratch = reinterpret_cast<float*>(plane_g);
    __syncwarp();
    scratch[threadIdx.x] = sum_al, scratch[32 + threadIdx.x] = sum_m;
    __syncwarp();
    if (threadIdx.x < 2) {
        float sum = 0.f;
        for (int i = 0; i < 32; ++i) sum += scratch[32 * threadIdx.x + i];
        partial_sums[2 * blockIdx.x + threadIdx.x] = sum;
    }
}
