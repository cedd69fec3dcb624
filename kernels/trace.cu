/*
trace.cu: the activations of perturbed copies [m, d] on their way from the forward passes to FOCI, which wants columns
of doubles; they stay in device memory (MATH.md, Eq. 4 and 6).

    of every sample of a request: add_trace_f64, in the order of the samples; then mean_trace_f32
    not_finite_u64: where a value is no number
    columns_f64: some of the columns, one after another

One thread handles one value, but for columns_f64, whose blocks turn a tile of TRACE_TILE x TRACE_TILE values in shared
memory, so that reads and writes are of neighbours. Memory bounds all of them.
*/
#include "common/gpu.h"
#include "tiles.h"

DEVICE uint64_t element() { return uint64_t(blockIdx.x) * TRACE_THREADS + threadIdx.x; }

// sums = or (add) += values.
extern "C" __global__ void __launch_bounds__(TRACE_THREADS)
add_trace_f64(double* sums, const float* values, uint64_t len, uint32_t add) {
    uint64_t i = element();
    if (i < len) sums[i] = __dadd_rn(add ? sums[i] : 0.0, double(values[i]));
}
KERNEL(add_trace_f64);

// out = sums / over, rounded once more.
extern "C" __global__ void __launch_bounds__(TRACE_THREADS)
mean_trace_f32(float* out, const double* sums, uint64_t len, double over) {
    uint64_t i = element();
    if (i < len) out[i] = float(sums[i] / over);
}
KERNEL(mean_trace_f32);

// out[0] = the least number of a value that is not finite, where there is one and it is below out[0].
extern "C" __global__ void __launch_bounds__(TRACE_THREADS)
not_finite_u64(uint64_t* out, const float* values, uint64_t len) {
    uint64_t i = element();
    if (i >= len || (__float_as_uint(values[i]) & 0x7f800000u) != 0x7f800000u) return;
    atomicMin((unsigned long long*)out, (unsigned long long)i);
}
KERNEL(not_finite_u64);

// columns[j][i] = rows[i][first + j] for j < p; columns [p, n], rows [n, d].
extern "C" __global__ void __launch_bounds__(TRACE_THREADS)
columns_f64(double* columns, const float* rows, uint32_t n, uint32_t d, uint32_t first, uint32_t p) {
    struct Tile { float of[TRACE_TILE][TRACE_TILE + 1]; };  // 1 more: the columns of a tile are on different banks
    SHARED(Tile, tile);
    uint32_t across = (p + TRACE_TILE - 1) / TRACE_TILE, x = threadIdx.x % TRACE_TILE;
    uint32_t column = blockIdx.x % across * TRACE_TILE, row = blockIdx.x / across * TRACE_TILE;
    for (uint32_t y = threadIdx.x / TRACE_TILE; y < TRACE_TILE; y += TRACE_THREADS / TRACE_TILE)
        if (row + y < n && column + x < p) tile.of[y][x] = rows[uint64_t(row + y) * d + first + column + x];
    __syncthreads();
    for (uint32_t y = threadIdx.x / TRACE_TILE; y < TRACE_TILE; y += TRACE_THREADS / TRACE_TILE)
        if (row + x < n && column + y < p) columns[uint64_t(column + y) * n + row + x] = tile.of[x][y];
}
KERNEL(columns_f64);
