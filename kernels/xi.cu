/*
xi.cu: the sums of Chatterjee's xi, integers and so the same in any order: differences of ranks along given orders of
the rows; and, where the order is random within runs of equal x, over all pairs within a run and between two adjacent
runs.
*/
#include "common/ascending.h"
#include "common/warp.h"
#include "tiles.h"

// out [orders, chunks] = sum of |R_(i+1) - R_i| over the positions of a chunk, along each of the orders [n]; rank [n].
extern "C" __global__ void __launch_bounds__(XI_THREADS)
along_u64(uint64_t* out, const uint32_t* rank, const uint32_t* orders, uint32_t n, uint32_t chunks) {
    struct Parts { uint64_t of[XI_THREADS]; };
    SHARED(Parts, parts);
    const uint32_t* order = orders + uint64_t(blockIdx.x / chunks) * n;
    uint32_t begin = blockIdx.x % chunks * XI_CHUNK, end = min(n - 1, begin + XI_CHUNK);
    uint64_t sum = 0;
    for (uint32_t at = begin + threadIdx.x; at < end; at += XI_THREADS) {
        uint32_t a = rank[min(order[at], n - 1)], b = rank[min(order[at + 1], n - 1)];
        sum += a < b ? b - a : a - b;
    }
    parts.of[threadIdx.x] = sum;
    __syncthreads();
    for (uint32_t half = XI_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) parts.of[threadIdx.x] += parts.of[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = parts.of[0];
}
KERNEL(along_u64);

// A sum of signed terms in 128 bits.
struct Wide {
    uint64_t low, high;

    DEVICE void add(uint64_t l, uint64_t h) {
        low += l;
        high += h + (low < l);
    }
    DEVICE void add(int64_t term) { add(uint64_t(term), uint64_t(term >> 63)); }
    DEVICE void over_lanes() {
        for (int offset = 16; offset; offset /= 2) {
            uint64_t l = __shfl_xor_sync(~0u, low, offset), h = __shfl_xor_sync(~0u, high, offset);
            add(l, h);
        }
    }
};

// out [count, 4] = for each run, sum of |a - b| over its pairs, and over the pairs of one of its values with one of the
// run before, each as a low and a high word. Run r is ranks[runs[r]] .. ranks[runs[r + 1] - 1], ascending; one warp per
// run.
//
// Between two ascending lists, every value v enters the sum (values of the other list below v) - (values not below v)
// times. Within one list of c values, the value at index j enters j - (c - 1 - j) times. Values and counts are below
// 2^31.
extern "C" __global__ void __launch_bounds__(XI_THREADS)
runs_u64(uint64_t* out, const uint32_t* ranks, const uint32_t* runs, uint32_t n, uint32_t count) {
    uint32_t run = warp(XI_THREADS);
    if (run >= count) return;
    auto at = [&](uint32_t r) { return min(runs[r], n); };
    uint32_t end = at(run + 1), start = min(at(run), end), before = run > 0 ? min(at(run - 1), start) : start;
    uint32_t c = end - start, b = start - before;
    Wide within = {0, 0}, between = {0, 0};
    for (uint32_t j = lane(); j < c; j += 32) {
        int64_t v = ranks[start + j];
        within.add(v * (2 * int64_t(j) - int64_t(c) + 1));
        between.add(v * (2 * int64_t(below(ranks + before, b, ranks[start + j])) - int64_t(b)));
    }
    for (uint32_t j = lane(); j < b; j += 32) {
        int64_t v = ranks[before + j];
        // Equal values must add nothing: one list counts them as below, the other as not below.
        between.add(v * (2 * int64_t(below(ranks + start, c, ranks[before + j] + 1)) - int64_t(c)));
    }
    within.over_lanes(), between.over_lanes();
    uint64_t* to = out + 4 * uint64_t(run);
    if (lane() == 0) to[0] = within.low, to[1] = within.high, to[2] = between.low, to[3] = between.high;
}
KERNEL(runs_u64);
