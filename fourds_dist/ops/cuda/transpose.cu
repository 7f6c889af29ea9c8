// A batch of matrices transposed, at the speed of a copy: channels_last maps to planes and back.

constexpr int TILE = 64;
constexpr int PAD = 4 / sizeof(stored);  // one bank

extern "C" __global__ void __launch_bounds__(256) transpose(const stored* x, stored* y, int rows, int columns) {
    __shared__ stored tile[TILE][TILE + PAD];
    const int tile_columns = (columns + TILE - 1) / TILE, tiles = (rows + TILE - 1) / TILE * tile_columns;
    const int row = blockIdx.x % tiles / tile_columns * TILE, column = blockIdx.x % tile_columns * TILE;
    const long long matrix = (long long)(blockIdx.x / tiles) * rows * columns;
    const int across = threadIdx.x % TILE, down = threadIdx.x / TILE;
#pragma unroll
    for (int i = down; i < TILE; i += 256 / TILE)
        if (row + i < rows && column + across < columns)
            tile[i][across] = x[matrix + (long long)(row + i) * columns + column + across];
    __syncthreads();
#pragma unroll
    for (int i = down; i < TILE; i += 256 / TILE)
        if (column + i < columns && row + across < rows)
            y[matrix + (long long)(column + i) * rows + row + across] = tile[across][i];
}
