// Max-pooling of channels_last maps, with a ReLU after the pool if RELU is set, and the gradient of both.
//
// A thread processes sixteen bytes of one pixel's channels. The gradient needs one byte per output: the position of the
// maximum in its window (row by row), or NONE where the ReLU blocks the gradient.

constexpr int VECTOR = 16 / sizeof(stored), VECTORS = CHANNELS / VECTOR;
constexpr unsigned NONE = 255;

struct alignas(VECTOR) Places {
    unsigned word[VECTOR / 4];
};

// The first of equal numbers wins, the last of several NaNs, as in PyTorch.
extern "C" __global__ void __launch_bounds__(THREADS) max_pool(
    const stored* x, stored* y, unsigned char* places, int count) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    const int vector = i % VECTORS, column = i / VECTORS % OUT_WIDTH, row = i / (VECTORS * OUT_WIDTH) % OUT_HEIGHT;
    const long long image = i / (VECTORS * OUT_WIDTH * OUT_HEIGHT);
    const int top = row * STRIDE_ROWS - PADDING_ROWS, left = column * STRIDE_COLUMNS - PADDING_COLUMNS;
    const Words* from = reinterpret_cast<const Words*>(x) + image * HEIGHT * WIDTH * VECTORS + vector;
    float best[VECTOR];
    unsigned place[VECTOR];
    const unsigned first = (top < 0 ? -top : 0) * KERNEL_COLUMNS + (left < 0 ? -left : 0);
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) best[j] = as_float(0xff800000u), place[j] = first;  // -infinity
#pragma unroll
    for (int k = 0; k < KERNEL_ROWS * KERNEL_COLUMNS; ++k) {
        const int h = top + k / KERNEL_COLUMNS, w = left + k % KERNEL_COLUMNS;
        if (h < 0 || h >= HEIGHT || w < 0 || w >= WIDTH) continue;
        float v[VECTOR];
        unpack(from[(h * WIDTH + w) * VECTORS], v);
#pragma unroll
        for (int j = 0; j < VECTOR; ++j)
            if (v[j] > best[j] || v[j] != v[j]) best[j] = v[j], place[j] = k;
    }
    if (RELU) {
#pragma unroll
        for (int j = 0; j < VECTOR; ++j)
            if (best[j] <= 0.f) best[j] = 0.f, place[j] = NONE;
    }
    reinterpret_cast<Words*>(y)[i] = pack(best);
    if (!KEEPS_PLACES) return;
    Places kept;
#pragma unroll
    for (int j = 0; j < VECTOR / 4; ++j)
        kept.word[j] = place[4 * j] | place[4 * j + 1] << 8 | place[4 * j + 2] << 16 | place[4 * j + 3] << 24;
    reinterpret_cast<Places*>(places)[i] = kept;
}

// Each pixel gathers from the windows that contain it, in a fixed order and without atomics: results are deterministic.
extern "C" __global__ void __launch_bounds__(THREADS) max_pool_backward(
    const stored* g, const unsigned char* places, stored* grad, int count) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    const int vector = i % VECTORS;
    const int left = i / VECTORS % WIDTH + PADDING_COLUMNS, top = i / (VECTORS * WIDTH) % HEIGHT + PADDING_ROWS;
    const long long image = i / (VECTORS * WIDTH * HEIGHT);
    const int first_row = top < KERNEL_ROWS ? 0 : (top - KERNEL_ROWS) / STRIDE_ROWS + 1;
    const int first_column = left < KERNEL_COLUMNS ? 0 : (left - KERNEL_COLUMNS) / STRIDE_COLUMNS + 1;
    float sum[VECTOR];
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) sum[j] = 0.f;
    for (int row = first_row; row < OUT_HEIGHT && row * STRIDE_ROWS <= top; ++row)
        for (int column = first_column; column < OUT_WIDTH && column * STRIDE_COLUMNS <= left; ++column) {
            const unsigned here = (top - row * STRIDE_ROWS) * KERNEL_COLUMNS + left - column * STRIDE_COLUMNS;
            const long long at = ((image * OUT_HEIGHT + row) * OUT_WIDTH + column) * VECTORS + vector;
            const Places kept = reinterpret_cast<const Places*>(places)[at];
            float v[VECTOR];
            unpack(reinterpret_cast<const Words*>(g)[at], v);
#pragma unroll
            for (int j = 0; j < VECTOR; ++j)
                if ((kept.word[j / 4] >> 8 * (j % 4) & 255u) == here) sum[j] += v[j];
        }
    reinterpret_cast<Words*>(grad)[i] = pack(sum);
}
