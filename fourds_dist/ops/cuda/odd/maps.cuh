// Small odd N x N maps (1, 3, 5, 7): a lane has a whole map in registers, a warp has 32 maps.
//
// Memory is read and written in order, by way of shared memory; a lane's stride there, N^2, is odd, so there are no bank
// conflicts. Maps are stored plane by plane (channels = 0), or pixel by pixel with `channels` channels: then a warp's
// lanes are neighbouring channels, which are neighbours in memory. The spectrum of a real map replaces the map's N^2
// elements, packed as follows (H = N / 2):
//   bin (0, 0)               real, at (0, 0)
//   bin (0, l), 1 <= l <= H  re at (0, l), im at (0, N - l)
//   bin (k, l), 1 <= k <= H  re at (k, l), im at (N - k, l), for every l
// Every bin but the first represents itself and its mirror.

constexpr int MAP = N * N;
constexpr int BINS = MAP / 2;  // complex bins
constexpr int PLANE = 32 * MAP;  // shared memory of 32 maps, in floats
constexpr float FULL_SCALE = 1.f / MAP;

__device__ constexpr int bin_row(int i) { return i < N / 2 ? 0 : 1 + (i - N / 2) / N; }
__device__ constexpr int bin_column(int i) { return i < N / 2 ? 1 + i : (i - N / 2) % N; }
__device__ constexpr int re_place(int i) { return bin_row(i) * N + bin_column(i); }
__device__ constexpr int im_place(int i) {
    return bin_row(i) == 0 ? N - bin_column(i) : (N - bin_row(i)) * N + bin_column(i);
}

struct Map {
    float at[MAP];
    __device__ __forceinline__ Bin bin(int i) const { return {at[re_place(i)], at[im_place(i)]}; }
    __device__ __forceinline__ void set(int i, Bin x) { at[re_place(i)] = x.re, at[im_place(i)] = x.im; }
};

// Number of elements of this warp in a tensor with `per_map` elements per map.
__device__ __forceinline__ int share(int num_maps, int per_map) {
    const int left = num_maps - 32 * blockIdx.x;
    return (left < 32 ? left : 32) * per_map;
}

// Start of this lane's map if maps are stored pixel by pixel.
__device__ __forceinline__ long long first_pixel(int map, int channels) {
    return (long long)(map / channels) * MAP * channels + map % channels;
}

template <typename type>
__device__ __forceinline__ void bring(const type* x, float* plane, int num_maps, int per_map, int channels = 0) {
    const int map = 32 * blockIdx.x + threadIdx.x, count = share(num_maps, per_map);
    if (channels) {
        if (map >= num_maps) return;
        x += first_pixel(map, channels);
#pragma unroll
        for (int i = 0; i < MAP; ++i) plane[threadIdx.x * MAP + i] = load_one(x + i * channels);
        return;
    }
    x += (long long)blockIdx.x * 32 * per_map;
#pragma unroll 13
    for (int i = 4 * threadIdx.x; i + 4 <= count; i += 128)
        *reinterpret_cast<float4*>(plane + i) = load_four(x + i);
    for (int i = count / 4 * 4 + threadIdx.x; i < count; i += 32) plane[i] = load_one(x + i);
}

template <typename type>
__device__ __forceinline__ void send(const float* plane, type* x, int num_maps, int per_map) {
    const int count = share(num_maps, per_map);
    x += (long long)blockIdx.x * 32 * per_map;
#pragma unroll 13
    for (int i = 4 * threadIdx.x; i + 4 <= count; i += 128)
        store_four(x + i, *reinterpret_cast<const float4*>(plane + i));
    for (int i = count / 4 * 4 + threadIdx.x; i < count; i += 32) store_one(x + i, plane[i]);
}

__device__ __forceinline__ void pick_up(Map& m, const float* plane, int num_maps) {
    const bool active = int(32 * blockIdx.x + threadIdx.x) < num_maps;
#pragma unroll
    for (int i = 0; i < MAP; ++i) m.at[i] = active ? plane[threadIdx.x * MAP + i] : 0.f;
}

__device__ __forceinline__ void put_down(const Map& m, float* plane, stored* x, int num_maps, int channels) {
    const int map = 32 * blockIdx.x + threadIdx.x;
    if (channels) {
        if (map >= num_maps) return;
        x += first_pixel(map, channels);
#pragma unroll
        for (int i = 0; i < MAP; ++i) store_one(x + i * channels, m.at[i]);
        return;
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < MAP; ++i) plane[threadIdx.x * MAP + i] = m.at[i];
    __syncwarp();
    send(plane, x, num_maps, MAP);
}

// Real DFT of N numbers at x[0], x[STRIDE], ...: place k takes re, place N - k takes im, 1 <= k <= N / 2.
template <int STRIDE>
__device__ __forceinline__ void real_dft(float* x) {
    constexpr Roots<N> roots;
    float even[N / 2 + 1], odd[N / 2 + 1];
    const float first = x[0];
#pragma unroll
    for (int j = 1; j <= N / 2; ++j) {
        even[j] = x[j * STRIDE] + x[(N - j) * STRIDE], odd[j] = x[j * STRIDE] - x[(N - j) * STRIDE];
        x[0] += even[j];
    }
#pragma unroll
    for (int k = 1; k <= N / 2; ++k) {
        float re = first, im = -roots.sine[k % N] * odd[1];
#pragma unroll
        for (int j = 1; j <= N / 2; ++j) {
            re += roots.cosine[j * k % N] * even[j];
            if (j > 1) im -= roots.sine[j * k % N] * odd[j];
        }
        x[k * STRIDE] = re, x[(N - k) * STRIDE] = im;
    }
}

template <int STRIDE>
__device__ __forceinline__ void inverse_real_dft(float* x) {  // without the 1/N
    constexpr Roots<N> roots;
    float re[N / 2 + 1], im[N / 2 + 1];
    const float first = x[0];
#pragma unroll
    for (int k = 1; k <= N / 2; ++k) {
        re[k] = 2.f * x[k * STRIDE], im[k] = 2.f * x[(N - k) * STRIDE];
        x[0] += re[k];
    }
#pragma unroll
    for (int j = 1; j <= N / 2; ++j) {
        float c = first, s = roots.sine[j % N] * im[1];
#pragma unroll
        for (int k = 1; k <= N / 2; ++k) {
            c += roots.cosine[j * k % N] * re[k];
            if (k > 1) s += roots.sine[j * k % N] * im[k];
        }
        x[j * STRIDE] = c - s, x[(N - j) * STRIDE] = c + s;
    }
}

template <bool INVERSE>
__device__ __forceinline__ void row_dfts(Map& m) {
    if (INVERSE) inverse_real_dft<1>(m.at);
    if (!INVERSE) real_dft<1>(m.at);
#pragma unroll
    for (int k = 1; k <= N / 2; ++k) {
        float re[N], im[N];
#pragma unroll
        for (int l = 0; l < N; ++l) re[l] = m.at[k * N + l], im[l] = m.at[(N - k) * N + l];
        if (INVERSE) dft<N>(im, re);
        if (!INVERSE) dft<N>(re, im);
#pragma unroll
        for (int l = 0; l < N; ++l) m.at[k * N + l] = re[l], m.at[(N - k) * N + l] = im[l];
    }
}

__device__ __forceinline__ void transform(Map& m) {
#pragma unroll
    for (int c = 0; c < N; ++c) real_dft<N>(m.at + c);
    row_dfts<false>(m);
}

__device__ __forceinline__ void invert(Map& m) {  // without the 1/N^2
    row_dfts<true>(m);
#pragma unroll
    for (int c = 0; c < N; ++c) inverse_real_dft<N>(m.at + c);
}
