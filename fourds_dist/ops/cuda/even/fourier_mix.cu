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
        if (pass == 0 || pass == 2) load_columns(z, pass == 0 ? a : h, lane);
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

// The gradients of slot l of a row of G: of one complex bin or, in two slots of row 0, of two real ones.
__device__ __forceinline__ MixGradient slot_gradient(
    const Line& g, int l, Bin x, Bin a, float w0, float w1, const Lane& lane) {
    if (lane.row != 0 || l % ROWS != 0) return mix_gradient({g.re[l], g.im[l]}, x, a, w0, w1, FULL_SCALE);
    const MixGradient re = mix_gradient({g.re[l], 0.f}, {x.re, 0.f}, {a.re, 0.f}, w0, w1, FULL_SCALE);
    const MixGradient im = mix_gradient({g.im[l], 0.f}, {x.im, 0.f}, {a.im, 0.f}, w0, w1, FULL_SCALE);
    return {{re.x.re, im.x.re}, {re.a.re, im.a.re}, 0.5f * (re.p_al + im.p_al), 0.5f * (re.p_m + im.p_m)};
}

constexpr bool PAIR = N >= PAIR_FROM;
enum Task { A, H, G, GRAD_H, GRAD_A, NUM_TASKS };  // each is two transforms of one tensor: columns, rows

// Gradients to h, a and, one partial sum of each for every block, to the two weights.
//
// Three planes of shared memory leave room for five blocks at 56x56, too few warps to hide their latencies. So on large
// maps two warps work on the same maps: first H beside A, then G alone, which meets the three spectra, then GRAD_H beside
// GRAD_A. Four such blocks fit without spilling registers.
extern "C" __global__ void __launch_bounds__(PAIR ? 64 : 32, PAIR ? 4 : 1) fourier_mix_backward(
    const stored* g, const stored* h, const stored* a, const float* weights, stored* grad_h, stored* grad_a,
    float* partial_sums, int num_maps, int need_h, int need_a) {
    extern __shared__ float4 shared[];
    float4 *plane_a = shared, *plane_h = shared + PLANE, *plane_g = shared + 2 * PLANE;
    const Lane lane(num_maps);
    const bool second = threadIdx.x >= 32;
    const float w0 = weights[0], w1 = weights[1];
    Line z = {};
    float sum_al = 0.f, sum_m = 0.f;

#pragma unroll 1
    for (int step = 0; step < 2 * (PAIR ? 3 : int(NUM_TASKS)); ++step) {
        if (PAIR && step % 2 == 0 && step > 0) __syncthreads();
        const int task = !PAIR ? step / 2 : second ? step / 2 * 2 : H + step / 2;
        if (second && task == G) continue;
        if ((task == GRAD_H && !need_h) || (task == GRAD_A && !need_a)) continue;
        const bool first_pass = step % 2 == 0, back = task >= GRAD_H;
        float4* plane = task == A || task == GRAD_A ? plane_a : task == H ? plane_h : plane_g;

        if (first_pass && !back) load_columns(z, task == A ? a : task == H ? h : g, lane);
        if (first_pass ? task == GRAD_A : !back) load_row(z, plane, lane);
        if (first_pass && back) put_together_exchanged(z, lane);
        if (!first_pass && back) rows_to_columns_exchanged(z, plane, lane);
        dft<N>(z.re, z.im);
        if (first_pass && !back) columns_to_rows(z, plane, lane);
        if (!first_pass && !back) take_apart(z, lane);
        if (!first_pass && task < G) store_row(z, plane, lane);
        if (!first_pass && task == G && lane.active) {
            float4 *row_a = lane.own_row(plane_a), *row_h = lane.own_row(plane_h);
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                const float4 x = row_h[i], y = row_a[i];
                const MixGradient d0 = slot_gradient(z, 2 * i, {x.x, x.y}, {y.x, y.y}, w0, w1, lane);
                const MixGradient d1 = slot_gradient(z, 2 * i + 1, {x.z, x.w}, {y.z, y.w}, w0, w1, lane);
                z.re[2 * i] = d0.x.re, z.im[2 * i] = d0.x.im;
                z.re[2 * i + 1] = d1.x.re, z.im[2 * i + 1] = d1.x.im;
                row_a[i] = make_float4(d0.a.re, d0.a.im, d1.a.re, d1.a.im);
                sum_al += d0.p_al + d1.p_al, sum_m += d0.p_m + d1.p_m;
            }
        }
        if (!first_pass && back) store_columns_exchanged(z, task == GRAD_H ? grad_h : grad_a, lane);
    }

    if (second) return;
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
