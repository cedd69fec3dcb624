/*
pruned.cu: the results of nearest.cu, from lists: for each row, the other rows by ascending D, their distance in the
chosen columns.

    for each row i:  list = the `len` others of least D[i, j]
        for each block of 32 candidates, one per lane:
            for j in list while D[i, j] <= the best of some lane:  visit j as nearest.cu does
            if D at the end of the list <= the best of some lane:  again, over all j with D[i, j] <= the largest best

No row j that is left out can count, because d >= D[i, j]: the sum is rounded once. So the result is exact for any
`len`, ties and infinite distances included. `len` decides how many rows are visited, which the kernel counts, and how
many searches start again.

An entry is the upper half of the bits of D, then j. Entries have a strict order by one integer comparison, and give a
lower bound of D with relative error 2^-20. list_f64 has one block per row, which streams D through a buffer in shared
memory. Entries below the limit are appended; when no more fit, the buffer is sorted, its first `len` entries stay, and
the last of them becomes the limit. pruned_f64 has one warp per row and block of candidates. Consecutive blocks go
through the rows first, so that the columns of a block of candidates stay in L2. The values of a row in all 32
candidates are one load: `packed` is [n, 32] for each 32 candidates, and narrower for the last ones. Here a panel of D
is [width, n].
*/
#include "common/distance.h"
#include "common/warp.h"
#include "tiles.h"

constexpr uint64_t UPPER = 0xffffffff00000000ull;
constexpr uint64_t NONE = UPPER | 0xfffffffeu;  // after all entries: no number, no row, unlike fresh memory

DEVICE uint64_t entry(double distance, uint32_t j) { return (uint64_t(__double_as_longlong(distance)) & UPPER) | j; }

// A lower bound of D; NaN where there is no entry.
DEVICE double lower(uint64_t bits) { return __longlong_as_double((long long)(bits & UPPER)); }

// Rounds columns to f32, packs them, and computes their slack. One block per column.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
pack_f64(float* packed, float* slack, const double* columns, uint32_t p, uint32_t n) {
    struct Parts { double of[NEAREST_THREADS]; };
    SHARED(Parts, parts);
    uint32_t candidate = blockIdx.x / 32 * 32, lanes = min(32u, p - candidate);
    packed += uint64_t(candidate) * n + blockIdx.x % 32;
    double most = 0.0;
    for (uint32_t i = threadIdx.x; i < n; i += NEAREST_THREADS) {
        double x = columns[uint64_t(blockIdx.x) * n + i];
        float narrow = float(x);
        packed[uint64_t(i) * lanes] = narrow;
        most = fmax(most, fabs(x - double(narrow)));
    }
    parts.of[threadIdx.x] = most;
    __syncthreads();
    for (uint32_t half = NEAREST_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) parts.of[threadIdx.x] = fmax(parts.of[threadIdx.x], parts.of[threadIdx.x + half]);
        __syncthreads();
    }
    // 2^-20 where 2^-21 is required: a margin for rounding.
    most = parts.of[0];
    if (threadIdx.x == 0) slack[blockIdx.x] = most > 0.0 ? float(2.0 * (1.0 + 0x1p-20) * most + 0x1p-149) : 0.0f;
}
KERNEL(pack_f64);

// Sorts `size` entries, a power of two, by a bitonic network.
DEVICE void sort(uint64_t* scratch, uint32_t size) {
    for (uint32_t k = 2; k <= size; k *= 2)
        for (uint32_t distance = k / 2; distance; distance /= 2) {
            for (uint32_t t = threadIdx.x; t < size / 2; t += LIST_THREADS) {
                uint32_t a = 2 * t - (t & (distance - 1));
                uint64_t one = scratch[a], other = scratch[a + distance];
                if ((other < one) == ((a & k) == 0)) scratch[a] = other, scratch[a + distance] = one;
            }
            __syncthreads();
        }
}

// The `len` entries of least D for rows starting at `first`; list [width, len], distance [width, n]. One block per row.
extern "C" __global__ void __launch_bounds__(LIST_THREADS)
list_f64(uint64_t* list, const double* distance, uint32_t n, uint32_t first, uint32_t len) {
    struct Scratch { uint64_t of[2 * LIST_MOST]; uint32_t held; };
    SHARED(Scratch, scratch);
    distance += uint64_t(blockIdx.x) * n, list += uint64_t(blockIdx.x) * len;
    uint32_t row = first + blockIdx.x, most = 2 * max(len, LIST_STEP);
    uint64_t limit = NONE;
    if (threadIdx.x == 0) scratch.held = 0;
    __syncthreads();
    for (uint32_t base = 0; base < n; base += LIST_STEP) {
        for (uint32_t j = base + threadIdx.x; j < min(n, base + LIST_STEP); j += LIST_THREADS) {
            uint64_t own = entry(distance[j], j);
            if (own < limit && j != row) scratch.of[atomicAdd(&scratch.held, 1)] = own;
        }
        __syncthreads();
        uint32_t held = scratch.held;
        if (held + LIST_STEP <= most && base + LIST_STEP < n) {
            __syncthreads();  // all have read it
            continue;
        }
        uint32_t size = len;
        while (size < held) size *= 2;
        for (uint32_t t = held + threadIdx.x; t < size; t += LIST_THREADS) scratch.of[t] = NONE;
        __syncthreads();
        sort(scratch.of, size);
        limit = scratch.of[len - 1];
        if (threadIdx.x == 0) scratch.held = min(held, len);
        __syncthreads();
    }
    for (uint32_t t = threadIdx.x; t < len; t += LIST_THREADS) list[t] = scratch.of[t];
}
KERNEL(list_f64);

// A greedy step for rows starting at `first`: sum and count [p, width]; tally += {entries visited, searches started
// again}.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
pruned_f64(uint64_t* sum, uint32_t* count, uint64_t* tally, const double* columns, const float* packed, const float* slack, const double* distance, const uint64_t* list, const uint32_t* rank, uint32_t p, uint32_t n, uint32_t first, uint32_t width, uint32_t len, uint32_t mean) {
    constexpr uint32_t WARPS = NEAREST_THREADS / 32;
    struct Other { double chosen; float near; uint32_t j, less; };
    struct Some { Other of[WARPS][32]; };
    SHARED(Some, some);
    uint32_t warp = threadIdx.x / 32, groups = (width + WARPS - 1) / WARPS;
    uint32_t candidate = blockIdx.x / groups * 32, at = blockIdx.x % groups * WARPS + warp, row = first + at;
    if (at >= width) return;
    uint32_t lanes = min(32u, p - candidate), l = min(lane(), lanes - 1);  // lanes without a candidate repeat the last
    packed += uint64_t(candidate) * n + l, columns += uint64_t(candidate + l) * n;
    distance += uint64_t(at) * n, list += uint64_t(at) * len;

    double own = columns[row], best = infinite();
    float narrow = float(own), e = slack[candidate + l], most = float(best);
    uint64_t s = 0;
    uint32_t c = 0, least = 0xffffffffu, looked = 0, own_rank = rank[row];
    auto put = [&](uint32_t place, double chosen, uint32_t j) {
        some.of[warp][place] = {chosen, float(chosen), j, min(own_rank, rank[j])};
    };
    auto visit = [&](const Other& other) {
        float x = packed[uint64_t(other.j) * lanes];
        if (!(bound(narrow, x, e, other.near) <= most)) return;
        double d = __dadd_rn(other.chosen, squared(own, e == 0.0f ? double(x) : columns[other.j]));
        bool nearer = d < best, tied = d == best;  // every row ties where the best is infinite
        bool instead = nearer || (tied && !mean && other.j < least), as_well = tied && mean;
        s = instead ? other.less : as_well ? s + other.less : s;
        c = instead ? 1 : as_well ? c + 1 : c;
        least = instead ? other.j : least;
        best = nearer ? d : best, most = nearer ? limit(d) : most;
    };

    bool within = true;
    for (uint32_t base = 0; base < len && within; base += 32) {
        uint64_t bits = list[base + lane()];
        uint32_t j = uint32_t(bits);
        put(lane(), j < n ? distance[j] : lower(bits), j < n ? j : row);
        __syncwarp();  // votes do not order memory accesses, here and below
        for (uint32_t t = 0; t < 32; t += 4) {
            within = __any_sync(~0u, lower(entry(some.of[warp][t].chosen, 0)) <= best);
            if (!within) break;
            for (uint32_t next = t; next < t + 4; ++next) visit(some.of[warp][next]);
            looked += 4;
        }
        __syncwarp();
    }

    bool again = len < n - 1 && __any_sync(~0u, lower(list[len - 1]) <= best);
    if (again) {
        double farthest = best;
        for (int offset = 16; offset; offset /= 2) farthest = fmax(farthest, __shfl_xor_sync(~0u, farthest, offset));
        s = 0, c = 0, least = 0xffffffffu;
        for (uint32_t base = 0; base < n; base += 32) {
            uint32_t j = base + lane();
            bool near = j < n && j != row && distance[j] <= farthest;
            uint32_t left = __ballot_sync(~0u, near);
            if (near) put(lane(), distance[j], j);
            __syncwarp();
            for (; left; left &= left - 1, ++looked) visit(some.of[warp][__ffs(left) - 1]);
            __syncwarp();
        }
    }
    if (lane() < lanes) {
        uint64_t to = uint64_t(candidate + lane()) * width + at;
        sum[to] = s, count[to] = c;
    }
    if (lane() == 0) {
        auto* counts = (unsigned long long*)tally;
        atomicAdd(counts, looked);
        if (again) atomicAdd(counts + 1, 1);
    }
}
KERNEL(pruned_f64);
