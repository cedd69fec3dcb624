/*
sort.cu: sorts each of p columns by (value, row), so that the first step of FOCI finds neighbours next to each other.

A bitonic network on `size` >= n elements per column, a power of two. Elements beyond n are +inf with row 2^32 - 1 and
end up last. sort_tile_f64 runs all stages within tiles of at most SORT_TILE elements in shared memory: either the whole
network up to the tile (merge = 0), or the tail of the merge of `merge` elements. sort_step_f64 runs one stage between
elements at `distance` in global memory. Pairs are distinct, so the order is unique; -0 and 0 are equal values.
*/
#include "common/gpu.h"
#include "tiles.h"

DEVICE bool precedes(double v, uint32_t i, double w, uint32_t j) { return v < w || (v == w && i < j); }

// Puts elements a < b of a column into the order that the merge of `merge` elements requires.
DEVICE void exchange(double* value, uint32_t* row, uint32_t a, uint32_t b, bool ascending) {
    if (precedes(value[b], row[b], value[a], row[a]) == ascending) {
        double v = value[a];
        uint32_t r = row[a];
        value[a] = value[b], row[a] = row[b];
        value[b] = v, row[b] = r;
    }
}

extern "C" __global__ void __launch_bounds__(SORT_THREADS)
sort_load_f64(double* values, uint32_t* rows, const double* columns, uint32_t p, uint32_t n, uint32_t size) {
    uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= uint64_t(p) * size) return;
    uint64_t column = at / size;
    uint32_t i = uint32_t(at % size);
    values[at] = i < n ? columns[column * n + i] : __longlong_as_double(0x7ff0000000000000ll);
    rows[at] = i < n ? i : 0xffffffffu;
}
KERNEL(sort_load_f64);

extern "C" __global__ void __launch_bounds__(SORT_THREADS)
sort_tile_f64(double* values, uint32_t* rows, uint32_t size, uint32_t merge) {
    struct Tile { double value[SORT_TILE]; uint32_t row[SORT_TILE]; };
    SHARED(Tile, tile);
    uint32_t width = min(SORT_TILE, size), tiles = size / width;
    uint64_t base = uint64_t(blockIdx.x) * width;
    uint32_t offset = blockIdx.x % tiles * width;  // offset of the tile in its column
    for (uint32_t i = threadIdx.x; i < width; i += SORT_THREADS) tile.value[i] = values[base + i], tile.row[i] = rows[base + i];
    __syncthreads();
    for (uint32_t k = merge ? merge : 2; k <= (merge ? merge : width); k *= 2)
        for (uint32_t distance = min(k, width) / 2; distance; distance /= 2) {
            for (uint32_t t = threadIdx.x; t < width / 2; t += SORT_THREADS) {
                uint32_t a = t / distance * 2 * distance + t % distance;
                exchange(tile.value, tile.row, a, a + distance, ((offset + a) & k) == 0);
            }
            __syncthreads();
        }
    for (uint32_t i = threadIdx.x; i < width; i += SORT_THREADS) values[base + i] = tile.value[i], rows[base + i] = tile.row[i];
}
KERNEL(sort_tile_f64);

extern "C" __global__ void __launch_bounds__(SORT_THREADS)
sort_step_f64(double* values, uint32_t* rows, uint32_t p, uint32_t size, uint32_t merge, uint32_t distance) {
    uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= uint64_t(p) * (size / 2)) return;
    uint64_t column = at / (size / 2);
    uint32_t t = uint32_t(at % (size / 2)), a = t / distance * 2 * distance + t % distance;
    exchange(values + column * size, rows + column * size, a, a + distance, (a & merge) == 0);
}
KERNEL(sort_step_f64);
