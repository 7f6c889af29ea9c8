// fourier_mix on small odd maps.

extern "C" __global__ void __launch_bounds__(32) fourier_mix(
    const stored* h, const stored* a, const float* weights, stored* out, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    float *plane_h = reinterpret_cast<float*>(shared), *plane_a = plane_h + PLANE;
    const float w0 = weights[0] * FULL_SCALE, w1 = weights[1] * FULL_SCALE;
    bring(a, plane_a, num_maps, MAP, channels);
    bring(h, plane_h, num_maps, MAP, channels);
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
    x.at[0] = mix({x.at[0], 0.f}, amplitudes[BINS], w0, w1).re;
#pragma unroll
    for (int i = 0; i < BINS; ++i) x.set(i, mix(x.bin(i), amplitudes[i], w0, w1));
    invert(x);
    put_down(x, plane_h, out, num_maps, channels);
}

extern "C" __global__ void __launch_bounds__(32, 16) fourier_mix_backward(
    const stored* g, const stored* h, const stored* a, const float* weights, stored* grad_h, stored* grad_a,
    float* partial_sums, int num_maps, int need_h, int need_a, int channels) {
    extern __shared__ float4 shared[];
    float *plane_h = reinterpret_cast<float*>(shared), *plane_a = plane_h + PLANE;  // g overwrites h
    float* own_a = plane_a + threadIdx.x * MAP;
    const float w0 = weights[0] * FULL_SCALE, w1 = weights[1] * FULL_SCALE;
    bring(a, plane_a, num_maps, MAP, channels);
    bring(h, plane_h, num_maps, MAP, channels);
    __syncwarp();

    Map x, z;
    pick_up(x, plane_a, num_maps);  // the spectrum of a goes back to shared memory: registers are short
    transform(x);
#pragma unroll
    for (int i = 0; i < MAP; ++i) own_a[i] = x.at[i];
    pick_up(x, plane_h, num_maps);
    __syncwarp();
    bring(g, plane_h, num_maps, MAP, channels);
    transform(x);
    __syncwarp();
    pick_up(z, plane_h, num_maps);
    transform(z);
    const MixGradient dc = mix_gradient({z.at[0], 0.f}, {x.at[0], 0.f}, {own_a[0], 0.f}, w0, w1);
    float sum_al = 0.f, sum_m = 0.f;
    x.at[0] = dc.x.re, own_a[0] = dc.a.re;
#pragma unroll
    for (int i = 0; i < BINS; ++i) {
        const Bin bin_a = {own_a[re_place(i)], own_a[im_place(i)]};
        const MixGradient d = mix_gradient(z.bin(i), x.bin(i), bin_a, w0, w1);
        x.set(i, d.x);
        own_a[re_place(i)] = d.a.re, own_a[im_place(i)] = d.a.im;
        sum_al += d.p_al, sum_m += d.p_m;
    }
    const bool active = int(32 * blockIdx.x + threadIdx.x) < num_maps;
    sum_al = active ? 2.f * sum_al + dc.p_al : 0.f, sum_m = active ? 2.f * sum_m + dc.p_m : 0.f;
    if (need_h) invert(x), put_down(x, plane_h, grad_h, num_maps, channels);
    if (need_a) {
#pragma unroll
        for (int i = 0; i < MAP; ++i) x.at[i] = own_a[i];
        invert(x);
        put_down(x, plane_a, grad_a, num_maps, channels);
    }

    __syncwarp();
    plane_a[threadIdx.x] = sum_al, plane_h[threadIdx.x] = sum_m;
    __syncwarp();
    if (threadIdx.x < 2) {
        const float* from = threadIdx.x ? plane_h : plane_a;
        float sum = 0.f;
        for (int i = 0; i < 32; ++i) sum += from[i];
        partial_sums[2 * blockIdx.x + threadIdx.x] = sum * FULL_SCALE;
    }
}
