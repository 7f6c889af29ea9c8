// fourier_mix on even maps. Six transforms forward, ten backward, of one line to a lane each.
//
// A line is in registers only during its transform and otherwise in shared memory, and pixels are prefetched. Registers
// therefore allow as many blocks as shared memory does, and the blocks hide each other's latencies. Pointwise work reads
// bins from shared memory too: a lane has two neighbouring bins of every row, and its share of row 0.

constexpr bool PAIR = N >= PAIR_FROM;
// Blocks of one warp, or of one pair, that fit into the shared memory of an H100, as a bound on registers; other sizes
// would spill under such bounds.
constexpr int SMALL = CHANNELS ? 20 : 1;
constexpr int FORWARD_BLOCKS = N == 56 ? 11 : N == 28 ? 20 : SMALL, BACKWARD_BLOCKS = N == 56 ? 5 : N == 28 ? 10 : SMALL;

// The spectrum of the result overwrites that of h, with real and imaginary parts exchanged.
__device__ __forceinline__ void mix_row_zero(Bin* x, const Bin* a, float w0, float w1, int l) {
    if (l == 0) {
#pragma unroll
        for (int i = 0; i < N; i += ROWS)  // real bins, two in a slot
            x[i] = {mix({2.f * x[i].im, 0.f}, amplitude({2.f * a[i].im, 0.f}), w0, w1).re,
                    mix({2.f * x[i].re, 0.f}, amplitude({2.f * a[i].re, 0.f}), w0, w1).re};
    } else {
        const RowZeroBins xs = take_apart(x, l), as = take_apart(a, l);
        put_together_exchanged(x, l, mix(xs.first, amplitude(as.first), w0, w1),
                               mix(xs.middle, amplitude(as.middle), w0, w1));
    }
}

extern "C" __global__ void __launch_bounds__(32 * GROUPS, blocks_of(FORWARD_BLOCKS)) fourier_mix(
    const stored* h, const stored* a, const float* weights, stored* out, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    constexpr int SHARE = PLANE + PLANE / 2 + MAPS * N / 2;
    const Lane lane(num_maps);
    float4* plane = shared + lane.group * SHARE;
    float2* amplitudes = reinterpret_cast<float2*>(plane + PLANE) + lane.slot * (ROWS * PITCH);  // |A|, but for row 0
    Bin* row_zero_a = reinterpret_cast<Bin*>(plane + PLANE + PLANE / 2) + lane.slot * N;

    auto stage_maps = [&](const stored* x) {
        if constexpr (CHANNELS) {
            __syncthreads();
            Tile<32 * GROUPS>(shared, SHARE, channels).load(x);
            __syncthreads();
        } else {
            __syncwarp(), stage(plane, x, num_maps);
        }
    };
    stage_maps(a);
#pragma unroll 1
    for (int pass = 0; pass < 6; ++pass) {
        Line z;
        const bool columns = pass == 0 || pass == 2;
        if (columns) {
            wait_for_stage<0>();
            load_columns(z, lane.staged_pixels(plane), lane);
        } else if (pass == 5) {
            load_columns_exchanged(z, plane, lane);
        } else {
            load_row(z, plane, lane);
        }
        if (pass == 1) stage_maps(h);
        dft<N>(z.re, z.im);
        if (columns) columns_to_rows(z, plane, lane);
        if (pass == 1 && lane.active) {
            if (lane.row == 0) {
#pragma unroll
                for (int l = 0; l < N; ++l) row_zero_a[l] = {z.re[l], z.im[l]};
            } else {
#pragma unroll
                for (int i = 0; i < ROWS; ++i)
                    amplitudes[lane.row * PITCH + i] = make_float2(amplitude({z.re[2 * i], z.im[2 * i]}),
                                                                   amplitude({z.re[2 * i + 1], z.im[2 * i + 1]}));
            }
        }
        if (pass == 3 || pass == 4) store_row(z, plane, lane);
        __syncwarp();
        if (pass == 3) {
            if (lane.active) {
                const float w0 = weights[0] * FULL_SCALE, w1 = weights[1] * FULL_SCALE;
                float4* own = lane.own_columns(plane);
                mix_row_zero(lane.row_zero(plane), row_zero_a, w0, w1, lane.row);
#pragma unroll 3
                for (int k = 1; k < ROWS; ++k) {
                    const float4 x = own[k * PITCH];
                    const float2 al = amplitudes[k * PITCH + lane.row];
                    const Bin y0 = mix({x.x, x.y}, al.x, w0, w1), y1 = mix({x.z, x.w}, al.y, w0, w1);
                    own[k * PITCH] = make_float4(y0.im, y0.re, y1.im, y1.re);
                }
            }
            __syncwarp();
        }
        if (pass == 5) store_maps(z, out, plane, lane);
    }
    if constexpr (CHANNELS) {
        __syncthreads();
        Tile<32 * GROUPS>(shared, SHARE, channels).store(out);
    }
}

struct WeightSums {  // the gradients of the weights, of the bins met so far
    float al, m;
    __device__ void add(const MixGradient& d, float share = 1.f) { al += share * d.p_al, m += share * d.p_m; }
};

// The spectra of the gradients overwrite those of h and a, with real and imaginary parts exchanged.
__device__ __forceinline__ void row_zero_gradients(
    const Bin* g, Bin* x, Bin* a, float w0, float w1, int l, WeightSums& sums) {
    if (l == 0) {
#pragma unroll
        for (int i = 0; i < N; i += ROWS) {  // real bins, two per slot; each represents only itself
            const MixGradient re = mix_gradient({2.f * g[i].re, 0.f}, {2.f * x[i].re, 0.f}, {2.f * a[i].re, 0.f}, w0, w1);
            const MixGradient im = mix_gradient({2.f * g[i].im, 0.f}, {2.f * x[i].im, 0.f}, {2.f * a[i].im, 0.f}, w0, w1);
            x[i] = {im.x.re, re.x.re}, a[i] = {im.a.re, re.a.re};
            sums.add(re, 0.5f), sums.add(im, 0.5f);
        }
    } else {
        const RowZeroBins gs = take_apart(g, l), xs = take_apart(x, l), as = take_apart(a, l);
        const MixGradient first = mix_gradient(gs.first, xs.first, as.first, w0, w1);
        const MixGradient middle = mix_gradient(gs.middle, xs.middle, as.middle, w0, w1);
        put_together_exchanged(x, l, first.x, middle.x), put_together_exchanged(a, l, first.a, middle.a);
        sums.add(first), sums.add(middle);
    }
}

enum Task { A, H, G, GRAD_H, GRAD_A, NUM_TASKS };  // each is two transforms of one tensor: columns, rows

// Gradients to h and a, and one partial sum per block of the gradients to the two weights.
//
// Three planes of shared memory allow five blocks at 56x56, too few warps to hide their latencies. On large maps two
// warps therefore work on the same maps: first H and A in parallel, then G alone, then the pointwise work on the three
// spectra with alternate rows, then GRAD_H and GRAD_A in parallel.
constexpr int BACKWARD_WARPS = PAIR ? 2 : 1, BACKWARD_THREADS = 32 * GROUPS * BACKWARD_WARPS;

extern "C" __global__ void __launch_bounds__(BACKWARD_THREADS, blocks_of(BACKWARD_BLOCKS)) fourier_mix_backward(
    const stored* g, const stored* h, const stored* a, const float* weights, stored* grad_h, stored* grad_a,
    float* partial_sums, int num_maps, int need_h, int need_a, int channels) {
    extern __shared__ float4 shared[];
    const Lane lane(num_maps, BACKWARD_WARPS);
    float4* plane_a = shared + lane.group * 3 * PLANE;
    float4 *plane_h = plane_a + PLANE, *plane_g = plane_a + 2 * PLANE;
    // Warps are assigned to schedulers in turn. The block's number selects the warp that processes G, so that all
    // schedulers get this work.
    const bool second = PAIR && threadIdx.x / 32 % 2 != (unsigned(blockIdx.x) * 2654435761u >> 31);
    WeightSums sums = {};

    auto tile = [&](int plane) { return Tile<BACKWARD_THREADS>(shared + plane * PLANE, 3 * PLANE, channels); };
    if constexpr (CHANNELS) {
        tile(0).load(a), tile(1).load(h), tile(2).load(g);
        __syncthreads();
    } else {
        if (!PAIR || second) stage(plane_a, a, num_maps);
        if (!second) stage(plane_h, h, num_maps), stage(plane_g, g, num_maps);
    }

#pragma unroll 1
    for (int step = 0; step < 2 * (PAIR ? 3 : int(NUM_TASKS)); ++step) {
        const int task = !PAIR ? step / 2 : second ? step / 2 * 2 : H + step / 2;
        const bool first_pass = step % 2 == 0, back = task >= GRAD_H;
        float4* plane = task == A || task == GRAD_A ? plane_a : task == G ? plane_g : plane_h;
        const bool idle = (second && task == G) || (task == GRAD_H && !need_h) || (task == GRAD_A && !need_a);
        if (!idle) {
            Line z;
            if (first_pass && !back) {
                if (task == (PAIR ? H : A)) wait_for_stage<PAIR ? 1 : 2>();
                else wait_for_stage<0>();
                load_columns(z, lane.staged_pixels(plane), lane);
            }
            if (first_pass == back) load_row(z, plane, lane);
            if (!first_pass && back) load_columns_exchanged(z, plane, lane);
            dft<N>(z.re, z.im);
            if (first_pass && !back) columns_to_rows(z, plane, lane);
            if (first_pass == back) store_row(z, plane, lane);
            if (!first_pass && back) store_maps(z, task == GRAD_H ? grad_h : grad_a, plane, lane);
            __syncwarp();
        }
        if (task == G && !first_pass) {
            __syncthreads();
            if (lane.active) {
                const float w0 = weights[0] * FULL_SCALE, w1 = weights[1] * FULL_SCALE;
                float4 *own_a = lane.own_columns(plane_a), *own_h = lane.own_columns(plane_h);
                const float4* own_g = lane.own_columns(plane_g);
                if (!PAIR || second)
                    row_zero_gradients(
                        lane.row_zero(plane_g), lane.row_zero(plane_h), lane.row_zero(plane_a), w0, w1, lane.row, sums);
#pragma unroll 1
                for (int k = second ? 2 : 1; k < ROWS; k += PAIR ? 2 : 1) {
                    const float4 z = own_g[k * PITCH], x = own_h[k * PITCH], y = own_a[k * PITCH];
                    const MixGradient d0 = mix_gradient({z.x, z.y}, {x.x, x.y}, {y.x, y.y}, w0, w1);
                    const MixGradient d1 = mix_gradient({z.z, z.w}, {x.z, x.w}, {y.z, y.w}, w0, w1);
                    own_h[k * PITCH] = make_float4(d0.x.im, d0.x.re, d1.x.im, d1.x.re);
                    own_a[k * PITCH] = make_float4(d0.a.im, d0.a.re, d1.a.im, d1.a.re);
                    sums.add(d0), sums.add(d1);
                }
            }
            __syncthreads();
        }
    }

    float* scratch = reinterpret_cast<float*>(shared + 2 * PLANE);  // spectra of g, not read after the pointwise work
    scratch[threadIdx.x] = sums.al, scratch[BACKWARD_THREADS + threadIdx.x] = sums.m;
    __syncthreads();
    if (threadIdx.x < 2) {
        float sum = 0.f;
        for (int i = 0; i < BACKWARD_THREADS; ++i) sum += scratch[BACKWARD_THREADS * threadIdx.x + i];
        partial_sums[2 * blockIdx.x + threadIdx.x] = sum * FULL_SCALE;
    }
    if constexpr (CHANNELS) {
        if (need_h) tile(1).store(grad_h);
        if (need_a) tile(0).store(grad_a);
    }
}
