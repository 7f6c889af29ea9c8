// fourier_mix on small odd maps.

extern "C" __global__ void __launch_bounds__(32) fourier_mix(
    const stored* h, const stored* a, const float* weights, stored* out, int num_maps) {
    extern __shared__ float4 shared[];
    float *plane_h = reinterpret_cast<float*>(shared), *plane_a = plane_h + PLANE;
    const float w0 = weights[0], w1 = weights[1];
    bring(a, plane_a, num_maps, MAP);
    bring(h, plane_h, num_maps, MAP);
    __syncwarp();

    Map x, y;
    float amplitudes[BINS + 1];
    pick_up(y, plane_a, num_maps);
    transform(y);
    amplitudes[BINS] = amplitude({y.at[0], 0.f});
#pragma unroll
    for (int i = 0; i < BINS; ++i) amplitudes[i] = amplitude(y.bin(i));

    pick_up(x, plane_h, num_maps);
    transform(x);
    x.at[0] = mix({x.at[0], 0.f}, amplitudes[BINS], w0, w1, FULL_SCALE).re;
#pragma unroll
    for (int i = 0; i < BINS; ++i) x.set(i, mix(x.bin(i), amplitudes[i], w0, w1, FULL_SCALE));
    invert(x);
    put_down(x, plane_h, out, num_maps);
}

extern "C" __global__ void __launch_bounds__(32) fourier_mix_backward(
    const stored* g, const stored* h, const stored* a, const float* weights, stored* grad_h, stored* grad_a,
    float* partial_sums, int num_maps, int need_h, int need_a) {
    extern __shared__ float4 shared[];
    float *plane_h = reinterpret_cast<float*>(shared), *plane_a = plane_h + PLANE, *plane_g = plane_a + PLANE;
    const float w0 = weights[0], w1 = weights[1];
    bring(a, plane_a, num_maps, MAP);
    bring(h, plane_h, num_maps, MAP);
    bring(g, plane_g, num_maps, MAP);
    __syncwarp();

    Map x, y, z;
    pick_up(y, plane_a, num_maps);
    transform(y);
    pick_up(x, plane_h, num_maps);
    transform(x);
    pick_up(z, plane_g, num_maps);
    transform(z);
    const MixGradient dc = mix_gradient({z.at[0], 0.f}, {x.at[0], 0.f}, {y.at[0], 0.f}, w0, w1, FULL_SCALE);
    float sum_al = 0.f, sum_m = 0.f;
    x.at[0] = dc.x.re, y.at[0] = dc.a.re;
#pragma unroll
    for (int i = 0; i < BINS; ++i) {
        const MixGradient d = mix_gradient(z.bin(i), x.bin(i), y.bin(i), w0, w1, FULL_SCALE);
        x.set(i, d.x), y.set(i, d.a);
        sum_al += d.p_al, sum_m += d.p_m;
    }
    const bool active = int(32 * blockIdx.x + threadIdx.x) < num_maps;
    sum_al = active ? 2.f * sum_al + dc.p_al : 0.f, sum_m = active ? 2.f * sum_m + dc.p_m : 0.f;
    if (need_h) invert(x), put_down(x, plane_h, grad_h, num_maps);
    if (need_a) invert(y), put_down(y, plane_a, grad_a, num_maps);

    __syncwarp();
    plane_g[threadIdx.x] = sum_al, plane_h[threadIdx.x] = sum_m;
    __syncwarp();
    if (threadIdx.x < 2) {
        const float* from = threadIdx.x ? plane_h : plane_g;
        float sum = 0.f;
        for (int i = 0; i < 32; ++i) sum += from[i];
        partial_sums[2 * blockIdx.x + threadIdx.x] = sum;
    }
}
