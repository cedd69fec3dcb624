/*
statistic.cu: A = sum over rows of s_i / c_i for each of p columns (MATH.md, Eq. 1), the same in any order.

Each mean is its whole part plus 64 fractional bits, rounded down; whole parts add up in 64 bits, fractions in 128. One
block a column; out[column] = {whole, low, high} with A = whole + (low + high * 2^64) / 2^64.
*/
#include "common/gpu.h"
#include "tiles.h"

struct Sum { uint64_t whole, low, high; };

DEVICE Sum plus(Sum a, Sum b) {
    uint64_t low = a.low + b.low;
    return {a.whole + b.whole, low, a.high + b.high + (low < a.low)};
}

// 64 bits of (s mod c) / c by two divisions of 64 by 32 bits.
DEVICE Sum mean(uint64_t s, uint64_t c) {
    uint64_t high = s % c << 32, low = high % c << 32;
    return {s / c, (high / c) << 32 | low / c, 0};
}

extern "C" __global__ void __launch_bounds__(STATISTIC_THREADS)
statistic_u64(uint64_t* out, const uint64_t* sum, const uint32_t* count, uint32_t n) {
    struct Parts { Sum of[STATISTIC_THREADS]; };
    SHARED(Parts, parts);
    Sum total = {0, 0, 0};
    for (uint32_t i = threadIdx.x; i < n; i += STATISTIC_THREADS) {
        uint64_t at = uint64_t(blockIdx.x) * n + i;
        total = plus(total, mean(sum[at], count[at]));
    }
    parts.of[threadIdx.x] = total;
    __syncthreads();
    for (uint32_t half = STATISTIC_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) parts.of[threadIdx.x] = plus(parts.of[threadIdx.x], parts.of[threadIdx.x + half]);
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        uint64_t* to = out + 3 * uint64_t(blockIdx.x);
        to[0] = parts.of[0].whole, to[1] = parts.of[0].low, to[2] = parts.of[0].high;
    }
}
KERNEL(statistic_u64);
