// phase_distance on small odd maps.

constexpr float DEAD = 3.16227766e-3f;  // sqrt(1e-5), of the sum of amplitudes

// Compute both spectra, without DC, and return the sum of the teacher's amplitudes.
__device__ __forceinline__ float spectra(
    Map& s, Map& t, const stored* student, const stored* teacher, float* plane_s, float* plane_t, int num_maps,
    int channels) {
    bring(student, plane_s, num_maps, MAP, channels);
    bring(teacher, plane_t, num_maps, MAP, channels);
    __syncwarp();
    pick_up(s, plane_s, num_maps);
    pick_up(t, plane_t, num_maps);
    const float first_s = s.at[0], first_t = t.at[0];  // subtracted: a constant map becomes exactly zero
#pragma unroll
    for (int i = 0; i < MAP; ++i) s.at[i] -= first_s, t.at[i] -= first_t;
    transform(s);
    transform(t);
    float total = 0.f;
#pragma unroll
    for (int i = 0; i < BINS; ++i) total += sqrtf(power(t.bin(i)));
    return 2.f * total;
}

extern "C" __global__ void __launch_bounds__(32) phase_distance(
    const stored* student, const stored* teacher, float* distance, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    float* plane = reinterpret_cast<float*>(shared);
    Map s, t;
    const float total = spectra(s, t, student, teacher, plane, plane + PLANE, num_maps, channels);
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < BINS; ++i) sum += disparity(s.bin(i), t.bin(i));
    const int map = 32 * blockIdx.x + threadIdx.x;
    if (map < num_maps) distance[map] = total < DEAD ? 0.f : 2.f * sum / total;
}

extern "C" __global__ void __launch_bounds__(32) phase_distance_backward(
    const float* g, const stored* student, const stored* teacher, stored* grad_student, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    float* plane = reinterpret_cast<float*>(shared);
    Map s, t;
    const float total = spectra(s, t, student, teacher, plane, plane + PLANE, num_maps, channels);
    const int map = 32 * blockIdx.x + threadIdx.x;
    const float scale = map < num_maps && !(total < DEAD) ? g[map] / total : 0.f;
    s.at[0] = 0.f;
#pragma unroll
    for (int i = 0; i < BINS; ++i) s.set(i, disparity_gradient(s.bin(i), t.bin(i), scale));
    invert(s);
    put_down(s, plane, grad_student, num_maps, channels);
}
