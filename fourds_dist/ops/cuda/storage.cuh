// Element types of the tensors in memory. bfloat16 is converted by hand, so that no CUDA header is needed.

struct bfloat16 {
    unsigned short bits;
};

__device__ __forceinline__ float as_float(unsigned bits) { return __uint_as_float(bits); }

// Rounding to nearest, ties to even; NaN stays NaN.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
__device__ __forceinline__ unsigned pack_bfloat16(float low, float high) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
#else
__device__ __forceinline__ unsigned to_bfloat16(float v) {
    const unsigned bits = __float_as_uint(v);
    return v != v ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
__device__ __forceinline__ unsigned pack_bfloat16(float low, float high) {
    return to_bfloat16(low) | to_bfloat16(high) << 16;
}
#endif

__device__ __forceinline__ float2 load_pair(const float* x) { return *reinterpret_cast<const float2*>(x); }
__device__ __forceinline__ float2 load_pair(const bfloat16* x) {
    const unsigned bits = *reinterpret_cast<const unsigned*>(x);
    return make_float2(as_float(bits << 16), as_float(bits & 0xffff0000u));
}

__device__ __forceinline__ void store_pair(float* x, float a, float b) {
    *reinterpret_cast<float2*>(x) = make_float2(a, b);
}
__device__ __forceinline__ void store_pair(bfloat16* x, float a, float b) {
    *reinterpret_cast<unsigned*>(x) = pack_bfloat16(a, b);
}

__device__ __forceinline__ float4 load_four(const float* x) { return *reinterpret_cast<const float4*>(x); }
__device__ __forceinline__ float4 load_four(const bfloat16* x) {
    const float2 a = load_pair(x), b = load_pair(x + 2);
    return make_float4(a.x, a.y, b.x, b.y);
}

__device__ __forceinline__ void store_four(float* x, float4 v) { *reinterpret_cast<float4*>(x) = v; }
__device__ __forceinline__ void store_four(bfloat16* x, float4 v) {
    store_pair(x, v.x, v.y);
    store_pair(x + 2, v.z, v.w);
}

__device__ __forceinline__ float load_one(const float* x) { return *x; }
__device__ __forceinline__ float load_one(const bfloat16* x) { return as_float(unsigned(x->bits) << 16); }
__device__ __forceinline__ void store_one(float* x, float v) { *x = v; }
__device__ __forceinline__ void store_one(bfloat16* x, float v) { x->bits = (unsigned short)pack_bfloat16(v, 0.f); }

// Asynchronous copies of 8 or 16 bytes from global to shared memory: a thread commits groups of copies and later waits
// until at most GROUPS of the latest are pending. Before sm_80 the copy is synchronous.
template <int BYTES>
__device__ __forceinline__ void copy_ahead(void* to, const void* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const unsigned address = (unsigned)__cvta_generic_to_shared(to);
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(address), "l"(from) : "memory");
#else
    for (int i = 0; i < BYTES / 4; ++i) ((unsigned*)to)[i] = ((const unsigned*)from)[i];
#endif
}
__device__ __forceinline__ void close_group() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int GROUPS>
__device__ __forceinline__ void wait_for_groups() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}
