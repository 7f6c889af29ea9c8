// Transposition of a batch of bfloat16 matrices: channels_last maps to planes and back. Eight divides both sizes.
//
// A block has a tile of 64 x 64 elements. Threads read and write vectors of eight elements. A thread reads eight columns
// of two neighbouring rows and writes words of two rows of one column to shared memory, which then has the transpose.

constexpr int TILE = 64, VECTORS = TILE / 8, THREADS = 256;

struct alignas(16) Vector {
    unsigned word[4];
};

// Word of a tile: two rows of one column. The exchange of halves spreads a warp's words over all banks.
__device__ __forceinline__ int place(int column, int pair) { return column * (TILE / 2) + (pair ^ (column & 8) * 2); }

extern "C" __global__ void __launch_bounds__(THREADS) transpose(const stored* x, stored* y, int rows, int columns) {
    __shared__ Vector tile[TILE * VECTORS];
    unsigned* words = reinterpret_cast<unsigned*>(tile);
    const int tile_columns = (columns + TILE - 1) / TILE, tiles = (rows + TILE - 1) / TILE * tile_columns;
    const int row = blockIdx.x % tiles / tile_columns * TILE, column = blockIdx.x % tile_columns * TILE;
    const long long matrix = (long long)(blockIdx.x / tiles) * rows * columns;
    const int thread = threadIdx.x;
    {
        const int vector = thread / 32 / 2 * 2 + thread % 2, pair = thread / 32 % 2 * 16 + thread % 32 / 2;
        const int from_row = row + 2 * pair, from_column = column + 8 * vector;
        if (from_row < rows && from_column < columns) {
            const stored* from = x + matrix + (long long)from_row * columns + from_column;
            const Vector one = *reinterpret_cast<const Vector*>(from);
            const Vector other = *reinterpret_cast<const Vector*>(from + columns);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                words[place(8 * vector + 2 * j, pair)] = (one.word[j] & 0xffffu) | other.word[j] << 16;
                words[place(8 * vector + 2 * j + 1, pair)] = one.word[j] >> 16 | (other.word[j] & 0xffff0000u);
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = thread; i < TILE * VECTORS; i += THREADS) {
        const int to_row = i / VECTORS, vector = i % VECTORS;
        if (column + to_row >= columns || row + 8 * vector >= rows) continue;
        *reinterpret_cast<Vector*>(y + matrix + (long long)(column + to_row) * rows + row + 8 * vector) =
            *reinterpret_cast<const Vector*>(words + place(to_row, 4 * vector));
    }
}
