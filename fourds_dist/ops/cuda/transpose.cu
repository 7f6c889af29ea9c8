// Transposition of a batch of matrices: channels_last maps to planes and back. Both sizes of a matrix are even.

constexpr int TILE = 64;
constexpr int PAD = 4 / sizeof(stored);  // one bank
constexpr int WARPS = 8;

struct alignas(2 * sizeof(stored)) Pair {
    stored first, second;
};

extern "C" __global__ void __launch_bounds__(32 * WARPS) transpose(
    const stored* x, stored* y, int rows, int columns) {
    __shared__ stored tile[TILE][TILE + PAD];
    const int tile_columns = (columns + TILE - 1) / TILE, tiles = (rows + TILE - 1) / TILE * tile_columns;
    const int row = blockIdx.x % tiles / tile_columns * TILE, column = blockIdx.x % tile_columns * TILE;
    const long long matrix = (long long)(blockIdx.x / tiles) * rows * columns;
    const int warp = threadIdx.x / 32, across = threadIdx.x % 32 * 2;
#pragma unroll
    for (int i = warp; i < TILE; i += WARPS) {
        if (row + i >= rows || column + across >= columns) continue;
        const Pair pair = *reinterpret_cast<const Pair*>(x + matrix + (long long)(row + i) * columns + column + across);
        tile[i][across] = pair.first, tile[i][across + 1] = pair.second;
    }
    __syncthreads();
#pragma unroll
    for (int i = warp; i < TILE; i += WARPS) {
        if (column + i >= columns || row + across >= rows) continue;
        const Pair pair = {tile[across][i], tile[across + 1][i]};
        *reinterpret_cast<Pair*>(y + matrix + (long long)(column + i) * rows + row + across) = pair;
    }
}
