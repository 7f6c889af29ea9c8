// Just enough CUDA to run one-warp kernels on a CPU: 32 threads that meet at every __syncwarp, blocks one after another.
#include <barrier>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index { int x; };
inline thread_local Index threadIdx, blockIdx;
inline std::barrier<> meeting(32);
inline void __syncwarp() { meeting.arrive_and_wait(); }

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float rsqrtf(float v) { return 1.f / std::sqrt(v); }
inline float __uint_as_float(unsigned v) { float f; std::memcpy(&f, &v, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned v; std::memcpy(&v, &f, 4); return v; }

alignas(16) float4 shared[16384];

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int num_blocks, Arguments... arguments) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 32; ++t)
        threads.emplace_back([=] {
            threadIdx.x = t;
            for (int b = 0; b < num_blocks; ++b) {
                blockIdx.x = b;
                kernel(arguments...);
                meeting.arrive_and_wait();
            }
        });
    for (auto& thread : threads) thread.join();
}
