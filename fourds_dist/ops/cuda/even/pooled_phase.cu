// pooled_phase on even maps, pooled to U x V cells with U and V dividing N: the kernel writes only the cells.

constexpr int CELL_ROWS = N / U, CELL_COLUMNS = N / V;
constexpr float CELL_SHARE = 1.f / (CELL_ROWS * CELL_COLUMNS);

__device__ constexpr int mirror(int l) { return (N - l) % N; }

__device__ __forceinline__ void stage_maps(float4* shared, const stored* h, int channels) {
    if constexpr (CHANNELS) {
        Tile<32 * GROUPS>(shared, PLANE, channels).load(h);
        __syncthreads();
    }
}

// Lane k sums the phases of row k and of its mirror N - k (the negated phases) over the columns of the cells.
extern "C" __global__ void __launch_bounds__(32 * GROUPS) pooled_phase(
    const stored* h, float* pooled, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    const Lane lane(num_maps);
    float4* plane = shared + lane.group * PLANE;
    stage_maps(shared, h, channels);
    Line z = {};
#pragma unroll 1
    for (int pass = 0; pass < 2; ++pass) {
        if (pass == 0) load_columns(z, own_pixels(h, plane, lane), lane);
        if (pass == 1) load_row(z, plane, lane);
        dft<N>(z.re, z.im);
        if (pass == 0) columns_to_rows(z, plane, lane);
    }
    take_apart(z, lane);

    float own[V] = {}, other[V] = {};  // lane 0: rows 0 and N/2, each of which is its own mirror
#pragma unroll
    for (int l = 0; l < N; ++l) {
        const Bin x = {z.re[l], z.im[l]};
        const float phi = phase(x), mirrored_phi = mirrored(phi, x);
        if (lane.row != 0) {
            own[l / CELL_COLUMNS] += phi;
            other[mirror(l) / CELL_COLUMNS] += mirrored_phi;
        } else if (l % ROWS == 0) {
            own[l / CELL_COLUMNS] += real_phase(z.re[l]);
            other[l / CELL_COLUMNS] += real_phase(z.im[l]);
        } else if (l < ROWS) {
            own[l / CELL_COLUMNS] += phi;
            own[mirror(l) / CELL_COLUMNS] += mirrored_phi;
        } else {  // slot l holds bin (N/2, N - l)
            other[mirror(l) / CELL_COLUMNS] += phi;
            other[l / CELL_COLUMNS] += mirrored_phi;
        }
    }

    __syncwarp();
    float* rows = reinterpret_cast<float*>(plane) + lane.slot * (N * V);
    if (lane.active) {
        const int other_row = lane.row == 0 ? ROWS : N - lane.row;
#pragma unroll
        for (int v = 0; v < V; ++v) rows[lane.row * V + v] = own[v], rows[other_row * V + v] = other[v];
    }
    __syncwarp();
    if (!lane.active) return;
    for (int cell = lane.row; cell < U * V; cell += ROWS) {
        const int u = cell / V, v = cell % V;
        float sum = 0.f;
#pragma unroll
        for (int r = 0; r < CELL_ROWS; ++r) sum += rows[(u * CELL_ROWS + r) * V + v];
        pooled[(long long)lane.map * (U * V) + cell] = sum * CELL_SHARE;
    }
}

// The gradient of a bin is that of its cell minus that of its mirror's cell.
extern "C" __global__ void __launch_bounds__(32 * GROUPS) pooled_phase_backward(
    const float* g, const stored* h, stored* grad_h, int num_maps, int channels) {
    extern __shared__ float4 shared[];
    const Lane lane(num_maps);
    float4* plane = shared + lane.group * PLANE;
    stage_maps(shared, h, channels);
    Line z = {};
#pragma unroll 1
    for (int pass = 0; pass < 4; ++pass) {
        if (pass == 0) load_columns(z, own_pixels(h, plane, lane), lane);
        if (pass == 1) load_row(z, plane, lane);
        if (pass == 3) rows_to_columns_exchanged(z, plane, lane);
        dft<N>(z.re, z.im);
        if (pass == 0) columns_to_rows(z, plane, lane);
        if (pass == 1) {
            take_apart(z, lane);
            float own[V] = {}, other[V] = {};
            if (lane.active) {
                const int other_row = lane.row == 0 ? ROWS : N - lane.row;
                const float* cells = g + (long long)lane.map * (U * V);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    own[v] = cells[lane.row / CELL_ROWS * V + v] * CELL_SHARE;
                    other[v] = cells[other_row / CELL_ROWS * V + v] * CELL_SHARE;
                }
            }
#pragma unroll
            for (int l = 0; l < N; ++l) {
                const int here = l / CELL_COLUMNS, there = mirror(l) / CELL_COLUMNS;
                float g_phi = own[here] - other[there];
                if (lane.row == 0) g_phi = l < ROWS ? own[here] - own[there] : other[there] - other[here];
                if (lane.row == 0 && l % ROWS == 0) g_phi = 0.f;
                const Bin y = phase_gradient(g_phi, {z.re[l], z.im[l]});
                z.re[l] = y.re, z.im[l] = y.im;
            }
            if (lane.row == 0) z.re[0] = z.im[0] = z.re[ROWS] = z.im[ROWS] = 0.f;
            put_together_exchanged(z, lane);
        }
        if (pass == 3) store_maps(z, grad_h, plane, lane);
    }
    if constexpr (CHANNELS) {
        __syncthreads();
        Tile<32 * GROUPS>(shared, PLANE, channels).store(grad_h);
    }
}
