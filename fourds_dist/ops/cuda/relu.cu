// In-place ReLU, which stores one bit per element for its gradient. A thread processes eight elements.

constexpr int NUMBERS = 16 / sizeof(stored), WORDS = 8 / NUMBERS;

extern "C" __global__ void __launch_bounds__(THREADS) relu(stored* x, unsigned char* bits, int count) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    Words* at = reinterpret_cast<Words*>(x) + (long long)i * WORDS;
    unsigned passed = 0;
#pragma unroll
    for (int part = 0; part < WORDS; ++part) {
        float v[NUMBERS];
        unpack(at[part], v);
#pragma unroll
        for (int j = 0; j < NUMBERS; ++j) {
            if (v[j] <= 0.f)
                v[j] = 0.f;
            else  // NaN too
                passed |= 1u << (part * NUMBERS + j);
        }
        at[part] = pack(v);
    }
    bits[i] = (unsigned char)passed;
}

extern "C" __global__ void __launch_bounds__(THREADS) relu_backward(
    const stored* g, const unsigned char* bits, stored* grad, int count) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    const unsigned passed = bits[i];
#pragma unroll
    for (int part = 0; part < WORDS; ++part) {
        float v[NUMBERS];
        unpack(reinterpret_cast<const Words*>(g)[(long long)i * WORDS + part], v);
#pragma unroll
        for (int j = 0; j < NUMBERS; ++j)
            if (!(passed >> (part * NUMBERS + j) & 1u)) v[j] = 0.f;
        reinterpret_cast<Words*>(grad)[(long long)i * WORDS + part] = pack(v);
    }
}
