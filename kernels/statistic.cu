/*
statistic.cu: A = sum over rows of s_i / c_i for each of p columns (MATH.md, Eq. 1), the same in any order.

Each mean is split into its integer part and 64 fractional bits, rounded down. Integer parts are summed in 64 bits,
fractions in 128. One block per column; out[column] = {whole, low, high} with A = whole + (low + high * 2^64) / 2^64.
Panels of rows add up.

best_u64 finds the largest A as selections compare it: rounded to 2^-32, ties by the lowest index.
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
statistic_u64(uint64_t* out, const uint64_t* sum, const uint32_t* count, uint32_t n, uint32_t add) {
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
        Sum all = add ? plus({to[0], to[1], to[2]}, parts.of[0]) : parts.of[0];
        to[0] = all.whole, to[1] = all.low, to[2] = all.high;
    }
}
KERNEL(statistic_u64);

struct Best { uint64_t top; uint32_t low, at; };  // A rounded to 2^-32: top + low / 2^32

DEVICE bool beats(Best a, Best b) {
    if (a.top != b.top) return a.top > b.top;
    return a.low > b.low || (a.low == b.low && a.at < b.at);
}

// out = {column, whole, low, high} of the best of the p columns that are left, at least one. One block.
extern "C" __global__ void __launch_bounds__(STATISTIC_THREADS)
best_u64(uint64_t* out, const uint64_t* sums, const uint32_t* left, uint32_t p) {
    struct Parts { Best of[STATISTIC_THREADS]; };
    SHARED(Parts, parts);
    Best best = {0, 0, 0xffffffffu};
    for (uint32_t at = threadIdx.x; at < p; at += STATISTIC_THREADS) {
        const uint64_t* a = sums + 3 * uint64_t(at);
        uint64_t low = a[1] + (1ull << 31);
        Best other = {a[0] + a[2] + (low < a[1]), uint32_t(low >> 32), at};
        if (left[at] && beats(other, best)) best = other;
    }
    parts.of[threadIdx.x] = best;
    __syncthreads();
    for (uint32_t half = STATISTIC_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half && beats(parts.of[threadIdx.x + half], parts.of[threadIdx.x]))
            parts.of[threadIdx.x] = parts.of[threadIdx.x + half];
        __syncthreads();
    }
    uint64_t at = parts.of[0].at;
    if (threadIdx.x < 4 && at < p) out[threadIdx.x] = threadIdx.x ? sums[3 * at + threadIdx.x - 1] : at;
}
KERNEL(best_u64);
