// Just enough CUDA to run kernels of up to sixteen warps on a CPU: threads that meet at every __syncwarp, blocks one after another.
#include <barrier>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index { int x; };
inline thread_local Index threadIdx, blockIdx;
inline std::barrier<>*warps[16], *block;
inline void __syncwarp() { warps[threadIdx.x / 32]->arrive_and_wait(); }
inline void __syncthreads() { block->arrive_and_wait(); }

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float rsqrtf(float v) { return 1.f / std::sqrt(v); }
inline float __uint_as_float(unsigned v) { float f; std::memcpy(&f, &v, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned v; std::memcpy(&v, &f, 4); return v; }

alignas(16) float4 shared[16384];  // 256 KiB

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int num_blocks, int num_threads, Arguments... arguments) {
    std::vector<std::unique_ptr<std::barrier<>>> all_warps;
    for (int w = 0; w < num_threads / 32; ++w)
        all_warps.push_back(std::make_unique<std::barrier<>>(32)), warps[w] = all_warps[w].get();
    std::barrier<> all(num_threads);
    block = &all;
    std::vector<std::thread> threads;
    for (int t = 0; t < num_threads; ++t)
        threads.emplace_back([=, &all] {
            threadIdx.x = t;
            for (int b = 0; b < num_blocks; ++b) {
                blockIdx.x = b;
                kernel(arguments...);
                all.arrive_and_wait();
            }
        });
    for (auto& thread : threads) thread.join();
}
