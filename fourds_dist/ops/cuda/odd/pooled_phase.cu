// pooled_phase on small odd maps, pooled to U x V cells with U and V dividing N.

constexpr int CELLS = U * V;
constexpr float CELL_SHARE = float(CELLS) / MAP;

__device__ constexpr int cell(int k, int l) { return (k % N) / (N / U) * V + (l % N) / (N / V); }
__device__ constexpr int cell_of(int i) { return cell(bin_row(i), bin_column(i)); }
__device__ constexpr int mirror_cell_of(int i) { return cell(N - bin_row(i), N - bin_column(i)); }

extern "C" __global__ void __launch_bounds__(32) pooled_phase(const stored* h, float* pooled, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    float* plane = reinterpret_cast<float*>(shared);
    bring(h, plane, num_maps, MAP, channels);
    __syncwarp();
    Map x;
    pick_up(x, plane, num_maps);
    transform(x);
    float sums[CELLS] = {};
    sums[0] = real_phase(x.at[0]);
#pragma unroll
    for (int i = 0; i < BINS; ++i) {
        const float phi = phase(x.bin(i));
        sums[cell_of(i)] += phi;
        sums[mirror_cell_of(i)] += mirrored(phi, x.bin(i));
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < CELLS; ++i) plane[threadIdx.x * CELLS + i] = sums[i] * CELL_SHARE;
    __syncwarp();
    send(plane, pooled, num_maps, CELLS);
}

extern "C" __global__ void __launch_bounds__(32) pooled_phase_backward(
    const float* g, const stored* h, stored* grad_h, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    float *plane = reinterpret_cast<float*>(shared), *cells = plane + PLANE;
    bring(h, plane, num_maps, MAP, channels);
    bring(g, cells, num_maps, CELLS);
    __syncwarp();
    Map x;
    pick_up(x, plane, num_maps);
    transform(x);
    cells += threadIdx.x * CELLS;
    x.at[0] = 0.f;
#pragma unroll
    for (int i = 0; i < BINS; ++i) {
        const float g_phi = cells[cell_of(i)] - cells[mirror_cell_of(i)];
        x.set(i, phase_gradient(0.5f * CELL_SHARE * g_phi, x.bin(i)));  // the inverse counts a bin and its mirror
    }
    invert(x);
    put_down(x, plane, grad_h, num_maps, channels);
}
