/*
nearest.cu: for each row, the others at the smallest distance, as the count c of them and s = sum of min(R_i, R_j) over
them (MATH.md, Eq. 1); the statistic needs no more. Distances are f64, one correctly rounded operation at a time in the
CPU's order, so the neighbours are exactly the CPU's. With mean = 0 the tied row of the lowest index alone counts.

    for each row i, for each candidate column x:
        for all j != i:  d = D[j, i] + (x_i - x_j)^2
            d < best: best, s, c = d, min(R_i, R_j), 1;   d = best: s, c += min(R_i, R_j), 1
*/
#include "common/gpu.h"
#include "tiles.h"

DEVICE double squared(double a, double b) {
    double apart = __dsub_rn(a, b);
    return __dmul_rn(apart, apart);
}

// distance[j, i] += (x_i - x_j)^2: one more chosen column. Symmetric to the last bit.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
distance_f64(double* distance, const double* column, uint32_t n) {
    uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= uint64_t(n) * n) return;
    distance[at] = __dadd_rn(distance[at], squared(column[at % n], column[at / n]));
}
KERNEL(distance_f64);

// A greedy step: p candidates, NEAREST_COLUMNS of them and NEAREST_THREADS rows a block; rows j come in tiles.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
nearest_f64(uint64_t* sum, uint32_t* count, const double* columns, const double* distance, const uint32_t* rank, uint32_t p, uint32_t n, uint32_t mean) {
    struct Tile { double x[NEAREST_COLUMNS][NEAREST_THREADS]; uint32_t rank[NEAREST_THREADS]; };
    SHARED(Tile, tile);
    uint32_t groups = (p + NEAREST_COLUMNS - 1) / NEAREST_COLUMNS;
    uint32_t first = blockIdx.x % groups * NEAREST_COLUMNS;
    uint32_t i = blockIdx.x / groups * NEAREST_THREADS + threadIdx.x, row = min(i, n - 1);
    auto column = [&](uint32_t l) { return columns + uint64_t(min(first + l, p - 1)) * n; };
    double own[NEAREST_COLUMNS], best[NEAREST_COLUMNS];
    uint64_t s[NEAREST_COLUMNS];
    uint32_t c[NEAREST_COLUMNS], own_rank = rank[row];
    for (uint32_t l = 0; l < NEAREST_COLUMNS; ++l) {
        own[l] = column(l)[row];
        best[l] = __longlong_as_double(0x7ff0000000000000ll);
        s[l] = 0, c[l] = 0;
    }
    for (uint32_t base = 0; base < n; base += NEAREST_THREADS) {
        if (base + threadIdx.x < n) {
            for (uint32_t l = 0; l < NEAREST_COLUMNS; ++l) tile.x[l][threadIdx.x] = column(l)[base + threadIdx.x];
            tile.rank[threadIdx.x] = rank[base + threadIdx.x];
        }
        __syncthreads();
        uint32_t others = min(NEAREST_THREADS, n - base);
        for (uint32_t t = 0; t < others; ++t) {
            if (base + t == row) continue;
            double chosen = distance[uint64_t(base + t) * n + row];
            uint32_t less = min(own_rank, tile.rank[t]);
            for (uint32_t l = 0; l < NEAREST_COLUMNS; ++l) {
                double d = __dadd_rn(chosen, squared(own[l], tile.x[l][t]));
                if (d < best[l] || c[l] == 0) best[l] = d, s[l] = less, c[l] = 1;
                else if (d == best[l] && mean) s[l] += less, c[l] += 1;
            }
        }
        __syncthreads();
    }
    for (uint32_t l = 0; l < NEAREST_COLUMNS; ++l)
        if (i < n && first + l < p) sum[uint64_t(first + l) * n + i] = s[l], count[uint64_t(first + l) * n + i] = c[l];
}
KERNEL(nearest_f64);

// The first step: columns sorted by (value, row), `size` elements each. One thread owns one sorted position and walks
// outwards while the distance stays the smallest: beyond a run of equal values squares can round to the same number.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
nearest_sorted_f64(uint64_t* sum, uint32_t* count, const double* values, const uint32_t* rows, const uint32_t* rank, uint32_t p, uint32_t n, uint32_t size, uint32_t mean) {
    uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= uint64_t(p) * n) return;
    uint64_t column = at / n;
    uint32_t a = uint32_t(at % n);
    values += column * size, rows += column * size;
    double own = values[a];
    uint32_t i = rows[a], own_rank = rank[i], c = 0, least = 0xffffffffu;
    double left = a > 0 ? squared(own, values[a - 1]) : 0.0, right = a + 1 < n ? squared(own, values[a + 1]) : 0.0;
    double best = a == 0 ? right : a + 1 == n ? left : left < right ? left : right;
    uint64_t s = 0;
    auto visit = [&](uint32_t b) {
        s += min(own_rank, rank[rows[b]]), c += 1;
        least = min(least, rows[b]);
    };
    for (uint32_t b = a; b > 0 && squared(own, values[b - 1]) == best; --b) visit(b - 1);
    for (uint32_t b = a + 1; b < n && squared(own, values[b]) == best; ++b) visit(b);
    sum[column * n + i] = mean ? s : min(own_rank, rank[least]);
    count[column * n + i] = mean ? c : 1;
}
KERNEL(nearest_sorted_f64);
