// Crops of decoded images, resized with antialiasing: PyTorch's bilinear filter, rounded once. A thread computes one pixel.

struct Crop {
    long long source, target;  // addresses: planes of a decoded image, rows of the result
    long long height, width, top, left, tall, wide;
};

struct Taps {
    int begin, end;
    float centre, scale, total;
};

__device__ float weight(const Taps& taps, int i) {
    return fmaxf(0.f, 1.f - fabsf((i + 0.5f - taps.centre) * taps.scale));
}

__device__ Taps taps_of(int at, int size, int num_pixels) {
    const float step = (float)num_pixels / size, reach = fmaxf(step, 1.f);
    Taps taps;
    taps.centre = step * (at + 0.5f);
    taps.scale = 1.f / reach;
    taps.begin = max(0, (int)(taps.centre - reach + 0.5f));
    taps.end = min(num_pixels, (int)(taps.centre + reach + 0.5f));
    taps.total = 0.f;
    for (int i = taps.begin; i < taps.end; ++i) taps.total += weight(taps, i);
    return taps;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    crop_resize(const Crop* crops, int size, int blocks_per_image) {
    const int pixel = blockIdx.x % blocks_per_image * THREADS + threadIdx.x;
    if (pixel >= size * size) return;
    const Crop crop = crops[blockIdx.x / blocks_per_image];
    const int row = pixel / size, column = pixel % size;
    const Taps down = taps_of(row, size, (int)crop.tall), right = taps_of(column, size, (int)crop.wide);
    const long long plane = crop.height * crop.width;
    const unsigned char* source = reinterpret_cast<const unsigned char*>(crop.source);
    float sums[3] = {0.f, 0.f, 0.f};
    for (int y = down.begin; y < down.end; ++y) {
        const unsigned char* line = source + (crop.top + y) * crop.width + crop.left;
        const float by = weight(down, y);
        for (int x = right.begin; x < right.end; ++x) {
            const float by_both = by * weight(right, x);
            for (int c = 0; c < 3; ++c) sums[c] += by_both * line[c * plane + x];
        }
    }
    unsigned char* target = reinterpret_cast<unsigned char*>(crop.target) + 3LL * pixel;
    const float total = down.total * right.total;
    for (int c = 0; c < 3; ++c) target[c] = (unsigned char)(sums[c] / total + 0.5f);
}
