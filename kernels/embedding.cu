/*
embedding.cu: y[i, :] = table[token[i], :], rows of a table taken by integer tokens, and the gradient of the table. Tokens
are data, so there is no tangent and no adjoint of them.

embedding_f32: one thread owns one element that is written. The host refuses a token that the table does not have; here its
row is NaN, so that nothing is read beyond the table.

The gradient is a sum over all places of a token, of which there can be one or most. So that one order of sums holds without
atomics, places are sorted by token first, equal ones in the order in which they stand (embedding_order_u32: one thread
owns one place and counts those before it, a tile of tokens at a time through shared memory: n^2 comparisons, 1 KiB). Then
(embedding_gradient_f32) a block owns 32 channels of a sorted place, and goes on only where a run of equal tokens begins:
lane l has channel l, and warp w places w, w + WARPS, .. of the run; sums are in f64, a thread's own places in order, then
the warps in order (2 KiB of shared memory). It is bound by memory, and by the longest run where one token is frequent.
*/
#include "common/block.h"
#include "tiles.h"

constexpr uint32_t WARPS = EMBEDDING_THREADS / 32;

// y [n, c], tokens [n], table [rows, c].
extern "C" __global__ void __launch_bounds__(EMBEDDING_THREADS)
embedding_f32(float* y, const uint32_t* tokens, const float* table, uint32_t n, uint32_t c, uint32_t rows) {
    uint32_t i = blockIdx.x * EMBEDDING_THREADS + threadIdx.x, at = i / c;
    if (at >= n) return;
    uint32_t token = tokens[at];
    y[i] = token < rows ? table[token * c + i % c] : NAN;
}
KERNEL(embedding_f32);

// order [n] = the places of tokens [n] in a stable ascending sort by token.
extern "C" __global__ void __launch_bounds__(EMBEDDING_THREADS)
embedding_order_u32(uint32_t* order, const uint32_t* tokens, uint32_t n) {
    struct Tile { uint32_t token[EMBEDDING_THREADS]; };
    SHARED(Tile, tile);
    uint32_t i = blockIdx.x * EMBEDDING_THREADS + threadIdx.x, own = i < n ? tokens[i] : 0, before = 0;
    for (uint32_t first = 0; first < n; first += EMBEDDING_THREADS) {
        if (first + threadIdx.x < n) tile.token[threadIdx.x] = tokens[first + threadIdx.x];
        __syncthreads();
        for (uint32_t j = 0, count = min(EMBEDDING_THREADS, n - first); j < count; ++j) {
            uint32_t other = tile.token[j];
            before += other < own || (other == own && first + j < i);
        }
        __syncthreads();  // before the next tile
    }
    if (i < n) order[before] = i;
}
KERNEL(embedding_order_u32);

// dtable [rows, c] += dy [n, c] by token; order and tokens [n].
extern "C" __global__ void __launch_bounds__(EMBEDDING_THREADS)
embedding_gradient_f32(float* dtable, const float* dy, const uint32_t* order, const uint32_t* tokens, uint32_t n, uint32_t c, uint32_t rows) {
    uint32_t blocks = (c + 31) / 32, first = blockIdx.x / blocks, channel = blockIdx.x % blocks * 32 + lane();
    uint32_t token = tokens[order[first]];
    if (token >= rows || (first > 0 && tokens[order[first - 1]] == token)) return;  // the whole block
    double sum = 0.0;
    if (channel < c)
        for (uint32_t k = first + threadIdx.x / 32; k < n && tokens[order[k]] == token; k += WARPS)
            sum += dy[order[k] * c + channel];
    sum = sum_over_warps<WARPS>(sum);
    if (threadIdx.x < 32 && channel < c) dtable[token * c + channel] += float(sum);
}
KERNEL(embedding_gradient_f32);
