// Access to elements in memory by words of sixteen bytes.

struct alignas(16) Words {
    unsigned word[4];
};

__device__ __forceinline__ void unpack(const Words& x, float (&v)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) v[j] = __uint_as_float(x.word[j]);
}
__device__ __forceinline__ void unpack(const Words& x, float (&v)[8]) {  // bfloat16
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        v[2 * j] = as_float(x.word[j] << 16);
        v[2 * j + 1] = as_float(x.word[j] & 0xffff0000u);
    }
}

__device__ __forceinline__ Words pack(const float (&v)[4]) {
    Words x;
#pragma unroll
    for (int j = 0; j < 4; ++j) x.word[j] = __float_as_uint(v[j]);
    return x;
}
__device__ __forceinline__ Words pack(const float (&v)[8]) {
    Words x;
#pragma unroll
    for (int j = 0; j < 4; ++j) x.word[j] = pack_bfloat16(v[2 * j], v[2 * j + 1]);
    return x;
}
