// Even N x N maps: one warp transforms 32 / (N / 2) maps, N / 2 lanes to each, without a block-wide barrier.
//
// Columns: lane j has columns 2j and 2j + 1 as the real and imaginary part of one sequence, transforms this sequence, and
// separates the two Hermitian spectra: rows k = 1..N/2-1 of both columns, and the real rows 0 and N/2 in one element.
// Rows: after an exchange through shared memory lane k has row k, N bins, and transforms this row. Row 0 is
// row 0 + i row N/2; lane 0 separates both: slot l has bin (0, l), slot N - l has bin (N/2, l), for 0 < l < N/2,
// and slots 0 and N/2 each have two real bins, of row 0 (re) and of row N/2 (im).
// Every lane but lane 0 therefore has N complex bins, each for itself and its mirror, and lane 0 has N - 2 of these and
// the four self-conjugate bins. Halvings are omitted: the stored spectrum is twice the DFT.
//
// The inverse has the same steps in reverse. An inverse DFT is a DFT with real and imaginary parts exchanged, so all
// passes of a kernel use the code of one transform: kernels loop over passes to fit into the instruction cache.
//
// Maps in planes: a block has the maps of one warp. Maps in channels_last memory: a block has CHANNELS neighbouring
// channels of one image, so that its threads read and write whole vectors of channels, and its warps have MAPS of them each.

constexpr int ROWS = N / 2;
constexpr int MAPS = 32 / ROWS;          // maps of a warp
constexpr int PITCH = ROWS | 1;          // of a row in shared memory, in float4 (two bins); odd, so no bank conflicts
constexpr int PLANE = MAPS * ROWS * PITCH;  // of the warp's maps, in float4
constexpr float FULL_SCALE = 1.f / (SPECTRUM_SCALE * N * N);
constexpr int GROUPS = CHANNELS ? CHANNELS / MAPS : 1;  // of maps in a block, each of one warp or two
constexpr int blocks_of(int single) { return single < GROUPS ? 1 : single / GROUPS; }

struct Lane {
    int group;    // which of the block's groups of maps
    int slot;     // which of the group's maps
    int row;      // which row, and which pair of columns
    int map;      // which map of the tensor
    bool active;  // whether there is such a map

    __device__ Lane(int num_maps, int warps_of_group = 1) {
        group = threadIdx.x / 32 / warps_of_group;
        slot = threadIdx.x % 32 / ROWS;
        row = threadIdx.x % 32 % ROWS;
        map = (blockIdx.x * GROUPS + group) * MAPS + slot;
        active = slot < MAPS && map < num_maps;
    }
    __device__ float4* own_row(float4* plane) const { return plane + (slot * ROWS + row) * PITCH; }
    __device__ float4* own_columns(float4* plane) const { return plane + slot * ROWS * PITCH + row; }
    __device__ Bin* row_zero(float4* plane) const { return reinterpret_cast<Bin*>(plane + slot * ROWS * PITCH); }
    __device__ long long own_pixels() const { return (long long)map * (N * N) + 2 * row; }
    __device__ stored* staged_pixels(float4* plane) const {
        return reinterpret_cast<stored*>(plane) + slot * (N * N) + 2 * row;
    }
};

struct Line {  // one row of bins, or two columns of pixels
    float re[N], im[N];
};

// `x`: the first of the lane's pixels, of a tensor or staged.
__device__ __forceinline__ void load_columns(Line& z, const stored* x, const Lane& lane, float less = 0.f) {
    if (!lane.active) return;
#pragma unroll
    for (int r = 0; r < N; ++r) {
        const float2 pair = load_pair(x + r * N);
        z.re[r] = pair.x - less, z.im[r] = pair.y - less;
    }
}

// Prefetch the pixels of the warp's maps into the plane of their later bins.
__device__ __forceinline__ void stage(float4* plane, const stored* x, int num_maps) {
    constexpr int CHUNK = N * N * sizeof(stored) % 16 == 0 ? 16 : 8, MAP_CHUNKS = N * N * sizeof(stored) / CHUNK;
    const int first = blockIdx.x * MAPS, left = num_maps - first, chunks = (left < MAPS ? left : MAPS) * MAP_CHUNKS;
    const char* from = reinterpret_cast<const char*>(x + (long long)first * (N * N));
    char* to = reinterpret_cast<char*>(plane);
#pragma unroll 1
    for (int i = threadIdx.x % 32; i < chunks; i += 32) copy_ahead<CHUNK>(to + i * CHUNK, from + i * CHUNK);
    close_group();
}

template <int LATER>  // how many later calls of `stage` need not be through
__device__ __forceinline__ void wait_for_stage() {
    wait_for_groups<LATER>();
    __syncwarp();
}

// The block's maps in channels_last memory, bfloat16. A thread has two neighbouring pixels of VECTOR channels: in memory
// one vector for each pixel, in shared memory one word for each channel, so that lanes access neighbouring words.
constexpr int VECTOR = CHANNELS && CHANNELS < 8 ? CHANNELS : 8;

struct alignas(2 * VECTOR) Vector {
    unsigned word[VECTOR / 2];
};

__device__ __forceinline__ unsigned low_halves(unsigned a, unsigned b) { return (a & 0xffffu) | b << 16; }
__device__ __forceinline__ unsigned high_halves(unsigned a, unsigned b) { return a >> 16 | (b & 0xffff0000u); }

template <int THREADS>
struct Tile {
    float4* planes;   // of the first group
    int share;        // float4 from one group's planes to the next group's
    int channels;     // of the tensor
    long long first;  // pixel of the tensor

    __device__ Tile(float4* planes, int share, int channels) : planes(planes), share(share), channels(channels) {
        const int blocks_of_image = channels / (GROUPS * MAPS);
        first = (long long)(blockIdx.x / blocks_of_image) * (N * N) * channels + blockIdx.x % blocks_of_image * CHANNELS;
    }
    __device__ unsigned& pixels(int channel, int pair) const {
        return reinterpret_cast<unsigned*>(planes + channel / MAPS * share)[channel % MAPS * (N * N / 2) + pair];
    }
    __device__ void load(const stored* x) const {
#pragma unroll 2
        for (int i = threadIdx.x; i < N * N / 2 * (CHANNELS / VECTOR); i += THREADS) {
            const int channel = i % (CHANNELS / VECTOR) * VECTOR, pair = i / (CHANNELS / VECTOR);
            const stored* from = x + first + (long long)(2 * pair) * channels + channel;
            const Vector one = *reinterpret_cast<const Vector*>(from);
            const Vector other = *reinterpret_cast<const Vector*>(from + channels);
#pragma unroll
            for (int j = 0; j < VECTOR / 2; ++j) {
                pixels(channel + 2 * j, pair) = low_halves(one.word[j], other.word[j]);
                pixels(channel + 2 * j + 1, pair) = high_halves(one.word[j], other.word[j]);
            }
        }
    }
    __device__ void store(stored* x) const {
#pragma unroll 2
        for (int i = threadIdx.x; i < N * N / 2 * (CHANNELS / VECTOR); i += THREADS) {
            const int channel = i % (CHANNELS / VECTOR) * VECTOR, pair = i / (CHANNELS / VECTOR);
            stored* to = x + first + (long long)(2 * pair) * channels + channel;
            Vector one, other;
#pragma unroll
            for (int j = 0; j < VECTOR / 2; ++j) {
                const unsigned even = pixels(channel + 2 * j, pair), odd = pixels(channel + 2 * j + 1, pair);
                one.word[j] = low_halves(even, odd), other.word[j] = high_halves(even, odd);
            }
            *reinterpret_cast<Vector*>(to) = one, *reinterpret_cast<Vector*>(to + channels) = other;
        }
    }
};

__device__ __forceinline__ void columns_to_rows(const Line& z, float4* plane, const Lane& lane) {
    __syncwarp();
    if (lane.active) {
        float4* to = lane.own_columns(plane);
        to[0] = make_float4(z.re[0], z.re[ROWS], z.im[0], z.im[ROWS]);
#pragma unroll
        for (int k = 1; k < ROWS; ++k)
            to[k * PITCH] = make_float4(z.re[k] + z.re[N - k], z.im[k] - z.im[N - k],  //
                                        z.im[k] + z.im[N - k], z.re[N - k] - z.re[k]);
    }
    __syncwarp();
}

__device__ __forceinline__ void load_row(Line& z, float4* plane, const Lane& lane) {
    if (!lane.active) return;
    const float4* from = lane.own_row(plane);
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        const float4 v = from[i];
        z.re[2 * i] = v.x, z.im[2 * i] = v.y, z.re[2 * i + 1] = v.z, z.im[2 * i + 1] = v.w;
    }
}

__device__ __forceinline__ void store_row(const Line& z, float4* plane, const Lane& lane) {
    if (!lane.active) return;
    float4* to = lane.own_row(plane);
#pragma unroll
    for (int i = 0; i < ROWS; ++i) to[i] = make_float4(z.re[2 * i], z.im[2 * i], z.re[2 * i + 1], z.im[2 * i + 1]);
}

__device__ __forceinline__ void take_apart(Line& z, const Lane& lane) {
    if (lane.row != 0) return;
#pragma unroll
    for (int l = 1; l < ROWS; ++l) {
        const float x = z.re[l], y = z.im[l], mirror_x = z.re[N - l], mirror_y = z.im[N - l];
        z.re[l] = x + mirror_x, z.im[l] = y - mirror_y;
        z.re[N - l] = y + mirror_y, z.im[N - l] = mirror_x - x;
    }
    z.re[0] *= 2.f, z.im[0] *= 2.f, z.re[ROWS] *= 2.f, z.im[ROWS] *= 2.f;
}

// Row 0 in shared memory: lane l separates slots l and N - l, which spreads the work over the lanes.
struct RowZeroBins {
    Bin first, middle;  // of rows 0 and N/2
};

__device__ __forceinline__ RowZeroBins take_apart(const Bin* row, int l) {
    const Bin x = row[l], mirror = row[N - l];
    return {{x.re + mirror.re, x.im - mirror.im}, {x.im + mirror.im, mirror.re - x.re}};
}

// After this z has imaginary parts in re and real parts in im, for the inverse transform.
__device__ __forceinline__ void put_together_exchanged(Line& z, const Lane& lane) {
    if (lane.row == 0) {
#pragma unroll
        for (int l = 1; l < ROWS; ++l) {
            const float x = z.re[l], y = z.im[l], other_x = z.re[N - l], other_y = z.im[N - l];
            z.re[l] = x - other_y, z.im[l] = y + other_x;
            z.re[N - l] = x + other_y, z.im[N - l] = other_x - y;
        }
    }
#pragma unroll
    for (int l = 0; l < N; ++l) {
        const float x = z.re[l];
        z.re[l] = z.im[l], z.im[l] = x;
    }
}

__device__ __forceinline__ void put_together_exchanged(Bin* row, int l, Bin first, Bin middle) {
    row[l] = {first.im + middle.re, first.re - middle.im};
    row[N - l] = {middle.re - first.im, first.re + middle.im};
}

__device__ __forceinline__ void load_columns_exchanged(Line& z, float4* plane, const Lane& lane) {
    if (!lane.active) return;
    const float4* from = lane.own_columns(plane);
    const float4 ends = from[0];
    z.im[0] = ends.y, z.re[0] = ends.w, z.im[ROWS] = ends.x, z.re[ROWS] = ends.z;
#pragma unroll
    for (int k = 1; k < ROWS; ++k) {
        const float4 v = from[k * PITCH];  // im0, re0, im1, re1
        z.im[k] = v.y - v.z, z.re[k] = v.x + v.w;
        z.im[N - k] = v.y + v.z, z.re[N - k] = v.w - v.x;
    }
}

__device__ __forceinline__ void rows_to_columns_exchanged(Line& z, float4* plane, const Lane& lane) {
    store_row(z, plane, lane);  // (im, re) of each bin
    __syncwarp();
    load_columns_exchanged(z, plane, lane);
}

// The first of the lane's pixels, of a tensor in planes, or staged.
__device__ __forceinline__ const stored* own_pixels(const stored* tensor, float4* plane, const Lane& lane) {
    return CHANNELS ? lane.staged_pixels(plane) : tensor + lane.own_pixels();
}

// `x`: see `own_pixels`.
__device__ __forceinline__ void store_columns_exchanged(const Line& z, stored* x, const Lane& lane) {
    if (!lane.active) return;
#pragma unroll
    for (int r = 0; r < N; ++r) store_pair(x + r * N, z.im[r], z.re[r]);
}

// Write the maps of the warp to a tensor, or into the plane from which the columns were loaded, for `Tile::store`.
__device__ __forceinline__ void store_maps(const Line& z, stored* x, float4* plane, const Lane& lane) {
    if (CHANNELS) __syncwarp();
    store_columns_exchanged(z, CHANNELS ? lane.staged_pixels(plane) : x + lane.own_pixels(), lane);
}

// Return the sum over the lanes of one map on each of these lanes, in a fixed order.
__device__ __forceinline__ float map_sum(float v, float* scratch, const Lane& lane) {
    __syncwarp();
    scratch[threadIdx.x % 32] = v;
    __syncwarp();
    float sum = 0.f;
    if (lane.active)
        for (int i = 0; i < ROWS; ++i) sum += scratch[lane.slot * ROWS + i];
    return sum;
}
