/*
rank.cu: the ranks of n values (MATH.md, Eq. 1): upper[i] = #{j : v_j <= v_i}, lower[i] = #{j : v_j >= v_i}, and
position[i], from 1, in a stable ascending sort.

One thread has one value and counts over all n, a tile at a time through shared memory: n^2 comparisons, no sort, exact
integers in any order. Equal values share upper and lower; among them, position ascends with the index.
*/
#include "common/gpu.h"
#include "tiles.h"

extern "C" __global__ void __launch_bounds__(RANK_THREADS)
rank_f64(uint32_t* upper, uint32_t* lower, uint32_t* position, const double* values, uint32_t n) {
    struct Tile { double value[RANK_THREADS]; };
    SHARED(Tile, tile);
    uint32_t i = blockIdx.x * RANK_THREADS + threadIdx.x;
    double own = i < n ? values[i] : 0.0;
    uint32_t less = 0, equal = 0, before = 0;  // before: equal values of smaller index
    for (uint32_t base = 0; base < n; base += RANK_THREADS) {
        if (base + threadIdx.x < n) tile.value[threadIdx.x] = values[base + threadIdx.x];
        __syncthreads();
        uint32_t count = min(RANK_THREADS, n - base);
        for (uint32_t t = 0; t < count; ++t) {
            double other = tile.value[t];
            less += other < own;
            equal += other == own;
            before += other == own && base + t < i;
        }
        __syncthreads();
    }
    if (i < n) {
        upper[i] = less + equal;
        lower[i] = n - less;
        position[i] = less + before + 1;
    }
}
KERNEL(rank_f64);
