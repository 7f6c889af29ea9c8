// phase_distance on even maps: the forward kernel writes one number per map.

constexpr float DEAD = 3.16227766e-3f;  // sqrt(1e-5), of the sum of amplitudes

// Weights and distances of this lane's row of bins, real bins at half weight; z holds S, row_t the spectrum T.
__device__ __forceinline__ void disparity_sums(const Line& z, const float4* row_t, const Lane& lane, float& sum) {
    sum = 0.f;
    if (!lane.active) return;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        const float4 t = row_t[i];
        const Bin s0 = {z.re[2 * i], z.im[2 * i]}, s1 = {z.re[2 * i + 1], z.im[2 * i + 1]};
        float d0 = disparity(s0, {t.x, t.y}), d1 = disparity(s1, {t.z, t.w});
        if (lane.row == 0) {
            if (2 * i % ROWS == 0)
                d0 = 0.5f * ((i == 0 ? 0.f : disparity({s0.re, 0.f}, {t.x, 0.f})) + disparity({s0.im, 0.f}, {t.y, 0.f}));
            if ((2 * i + 1) % ROWS == 0)
                d1 = 0.5f * (disparity({s1.re, 0.f}, {t.z, 0.f}) + disparity({s1.im, 0.f}, {t.w, 0.f}));
        }
        sum += d0 + d1;
    }
}

__device__ __forceinline__ float amplitude_sum(const Line& z, const Lane& lane) {
    float sum = 0.f;
#pragma unroll
    for (int l = 0; l < N; ++l) {
        float amplitude = sqrtf(power({z.re[l], z.im[l]}));
        if (lane.row == 0 && l % ROWS == 0) amplitude = 0.5f * ((l ? fabsf(z.re[l]) : 0.f) + fabsf(z.im[l]));
        sum += amplitude;
    }
    return lane.active ? sum : 0.f;
}

constexpr int SHARE = 2 * PLANE + 8;  // of a warp: two planes, and one number per lane

// A constant offset does not matter without DC: subtracting the first pixel makes a constant map exactly zero.
__device__ __forceinline__ void load_without_offset(Line& z, const stored* x, const Lane& lane) {
    const float first_pixel = lane.active ? load_pair(x - 2 * lane.row).x : 0.f;
    load_columns(z, x, lane, first_pixel);
}

__device__ __forceinline__ void stage_both(
    float4* shared, const stored* student, const stored* teacher, int channels) {
    if constexpr (CHANNELS) {
        Tile<32 * GROUPS>(shared, SHARE, channels).load(teacher);
        Tile<32 * GROUPS>(shared + PLANE, SHARE, channels).load(student);
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(32 * GROUPS) phase_distance(
    const stored* student, const stored* teacher, float* distance, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    const Lane lane(num_maps);
    float4 *plane_t = shared + lane.group * SHARE, *plane_s = plane_t + PLANE;
    float* scratch = reinterpret_cast<float*>(plane_t + 2 * PLANE);
    stage_both(shared, student, teacher, channels);
    float total = 0.f;
    Line z = {};
#pragma unroll 1
    for (int pass = 0; pass < 4; ++pass) {
        float4* plane = pass < 2 ? plane_t : plane_s;
        const stored* x = pass < 2 ? teacher : student;
        if (pass % 2 == 0) load_without_offset(z, own_pixels(x, plane, lane), lane);
        if (pass % 2 == 1) load_row(z, plane, lane);
        dft<N>(z.re, z.im);
        if (pass % 2 == 0) columns_to_rows(z, plane, lane);
        if (pass % 2 == 1) take_apart(z, lane);
        if (pass == 1) {
            store_row(z, plane, lane);
            total = map_sum(amplitude_sum(z, lane), scratch, lane);
        }
    }
    float sum;
    disparity_sums(z, lane.own_row(plane_t), lane, sum);
    sum = map_sum(sum, scratch, lane);
    if (lane.active && lane.row == 0) distance[lane.map] = total < DEAD ? 0.f : sum / total;
}

extern "C" __global__ void __launch_bounds__(32 * GROUPS) phase_distance_backward(
    const float* g, const stored* student, const stored* teacher, stored* grad_student, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    const Lane lane(num_maps);
    float4 *plane_t = shared + lane.group * SHARE, *plane_s = plane_t + PLANE;
    float* scratch = reinterpret_cast<float*>(plane_t + 2 * PLANE);
    stage_both(shared, student, teacher, channels);
    float scale = 0.f;
    Line z = {};
#pragma unroll 1
    for (int pass = 0; pass < 6; ++pass) {
        float4* plane = pass < 2 ? plane_t : plane_s;
        const stored* x = pass < 2 ? teacher : student;
        if (pass == 0 || pass == 2) load_without_offset(z, own_pixels(x, plane, lane), lane);
        if (pass == 1 || pass == 3) load_row(z, plane, lane);
        if (pass == 5) rows_to_columns_exchanged(z, plane, lane);
        dft<N>(z.re, z.im);
        if (pass == 0 || pass == 2) columns_to_rows(z, plane, lane);
        if (pass == 1 || pass == 3) take_apart(z, lane);
        if (pass == 1) {
            store_row(z, plane, lane);
            const float total = map_sum(amplitude_sum(z, lane), scratch, lane);
            scale = lane.active && !(total < DEAD) ? g[lane.map] / total : 0.f;
        }
        if (pass == 3) {
            if (lane.active) {
                const float4* row_t = lane.own_row(plane_t);
                const bool first = lane.row == 0;
#pragma unroll
                for (int i = 0; i < ROWS; ++i) {
                    const float4 t = row_t[i];
                    const Bin s0 = {z.re[2 * i], z.im[2 * i]}, s1 = {z.re[2 * i + 1], z.im[2 * i + 1]};
                    Bin d0 = disparity_gradient(s0, {t.x, t.y}, scale), d1 = disparity_gradient(s1, {t.z, t.w}, scale);
                    if (first && 2 * i % ROWS == 0)
                        d0 = {i == 0 ? 0.f : disparity_gradient({s0.re, 0.f}, {t.x, 0.f}, scale).re,
                              disparity_gradient({s0.im, 0.f}, {t.y, 0.f}, scale).re};
                    if (first && (2 * i + 1) % ROWS == 0)
                        d1 = {disparity_gradient({s1.re, 0.f}, {t.z, 0.f}, scale).re,
                              disparity_gradient({s1.im, 0.f}, {t.w, 0.f}, scale).re};
                    z.re[2 * i] = d0.re, z.im[2 * i] = d0.im, z.re[2 * i + 1] = d1.re, z.im[2 * i + 1] = d1.im;
                }
            }
            put_together_exchanged(z, lane);
        }
        if (pass == 5) store_maps(z, grad_student, plane, lane);
    }
    if constexpr (CHANNELS) {
        __syncthreads();
        Tile<32 * GROUPS>(shared + PLANE, SHARE, channels).store(grad_student);
    }
}
