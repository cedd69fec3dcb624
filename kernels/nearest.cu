/*
nearest.cu: for each row, the others at the smallest distance, as the count c of them and s = sum of min(R_i, R_j) over
them (MATH.md, Eq. 1); the statistic needs no more. Distances are f64, one correctly rounded operation at a time in the
CPU's order, so the neighbours are exactly the CPU's. With mean = 0 the tied row of the lowest index alone counts.

    for each row i, for each candidate column x:
        for all j != i:  if bound(i, j) > limit: continue;  d = D[j, i] + (x_i - x_j)^2
            d < best: best, s, c = d, min(R_i, R_j), 1;   d = best: s, c += min(R_i, R_j), 1

D is a panel [n, width]: the rows first .. first + width against all n; results are [p, width].

f32 searches, f64 decides. Let x' be x rounded to f32, e the column's slack >= 2 (1 + 2^-21) max |x - x'|, u = 2^-24,
C = D[j, i] and a = x_i - x_j. Of b = |x'_i - x'_j| - e (0 where that is not positive) and bound = b^2 + C, all in f32:

    |x'_i - x'_j| <= (|a| + e / (1 + 2^-21)) (1 + u),  so  b <= |a| (1 + u)^2
    bound <= (a^2 + C) (1 + u)^5 + 2^-148              (C is rounded to f32, the sum of the fma once)
    d >= (a^2 + C) (1 - 2^-53)^4 - 2^-1073             (in f64)

Hence d <= best gives bound <= limit = best (1 + 2^-20) + 2^-140, in f32: no row that is nearest or tied is passed over.
Where f32 cannot tell rows apart (e above their distances, or infinite: values beyond f32) all are compared in f64.
*/
#include "common/philox.h"
#include "tiles.h"

DEVICE double squared(double a, double b) {
    double apart = __dsub_rn(a, b);
    return __dmul_rn(apart, apart);
}

// slack[column] >= 2 (1 + 2^-21) max |x - x'|; one block a column.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
slack_f64(float* slack, const double* columns, uint32_t n) {
    struct Parts { double of[NEAREST_THREADS]; };
    SHARED(Parts, parts);
    double most = 0.0;
    for (uint32_t i = threadIdx.x; i < n; i += NEAREST_THREADS) {
        double x = columns[uint64_t(blockIdx.x) * n + i];
        most = fmax(most, fabs(x - double(float(x))));
    }
    parts.of[threadIdx.x] = most;
    __syncthreads();
    for (uint32_t half = NEAREST_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) parts.of[threadIdx.x] = fmax(parts.of[threadIdx.x], parts.of[threadIdx.x + half]);
        __syncthreads();
    }
    // 2^-20 where 2^-21 is asked for: a margin for the rounding.
    if (threadIdx.x == 0) slack[blockIdx.x] = float(2.0 * (1.0 + 0x1p-20) * parts.of[0] + 0x1p-149);
}
KERNEL(slack_f64);

// distance[j, i] = (fresh ? 0 : distance[j, i]) + sum over k chosen columns of (x_i - x_j)^2, in their order.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
distance_f64(double* distance, const double* columns, uint32_t k, uint32_t n, uint32_t first, uint32_t width, uint32_t fresh) {
    uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= uint64_t(n) * width) return;
    double sum = fresh ? 0.0 : distance[at];
    for (uint32_t c = 0; c < k; ++c, columns += n)
        sum = __dadd_rn(sum, squared(columns[first + at % width], columns[at / width]));
    distance[at] = sum;
}
KERNEL(distance_f64);

// A greedy step: p candidates, NEAREST_COLUMNS of them and NEAREST_THREADS rows a block; rows j come in tiles.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
nearest_f64(uint64_t* sum, uint32_t* count, const double* columns, const float* slack, const double* distance, const uint32_t* rank, uint32_t p, uint32_t n, uint32_t first, uint32_t width, uint32_t mean) {
    struct Tile { float x[NEAREST_COLUMNS][NEAREST_THREADS]; uint32_t rank[NEAREST_THREADS]; };
    SHARED(Tile, tile);
    uint32_t groups = (p + NEAREST_COLUMNS - 1) / NEAREST_COLUMNS, candidate = blockIdx.x % groups * NEAREST_COLUMNS;
    uint32_t i = blockIdx.x / groups * NEAREST_THREADS + threadIdx.x, at = min(i, width - 1), row = first + at;
    auto number = [&](uint32_t l) { return min(candidate + l, p - 1); };
    auto column = [&](uint32_t l) { return columns + uint64_t(number(l)) * n; };
    float own[NEAREST_COLUMNS], e[NEAREST_COLUMNS], limit[NEAREST_COLUMNS];
    double best[NEAREST_COLUMNS];
    uint64_t s[NEAREST_COLUMNS];
    uint32_t c[NEAREST_COLUMNS], own_rank = rank[row];
    for (uint32_t l = 0; l < NEAREST_COLUMNS; ++l) {
        own[l] = float(column(l)[row]), e[l] = slack[number(l)];
        best[l] = __longlong_as_double(0x7ff0000000000000ll), limit[l] = float(best[l]);
        s[l] = 0, c[l] = 0;
    }
    for (uint32_t base = 0; base < n; base += NEAREST_THREADS) {
        if (base + threadIdx.x < n) {
            for (uint32_t l = 0; l < NEAREST_COLUMNS; ++l)
                tile.x[l][threadIdx.x] = float(column(l)[base + threadIdx.x]);
            tile.rank[threadIdx.x] = rank[base + threadIdx.x];
        }
        __syncthreads();
        uint32_t others = min(NEAREST_THREADS, n - base);
        for (uint32_t t = 0; t < others; ++t) {
            uint32_t j = base + t;
            if (j == row) continue;
            double chosen = distance[uint64_t(j) * width + at];
            float near = float(chosen);
            for (uint32_t l = 0; l < NEAREST_COLUMNS; ++l) {
                float apart = fabsf(__fsub_rn(own[l], tile.x[l][t]));
                float b = apart > e[l] ? __fsub_rn(apart, e[l]) : 0.0f;  // 0 where both are infinite, or no number
                if (__fmaf_rn(b, b, near) > limit[l]) continue;
                double d = __dadd_rn(chosen, squared(column(l)[row], column(l)[j]));
                uint32_t less = min(own_rank, tile.rank[t]);
                if (d < best[l] || c[l] == 0) {
                    best[l] = d, s[l] = less, c[l] = 1;
                    limit[l] = float(__dadd_rn(__dmul_rn(d, 1.0 + 0x1p-20), 0x1p-140));
                } else if (d == best[l] && mean) s[l] += less, c[l] += 1;
            }
        }
        __syncthreads();
    }
    for (uint32_t l = 0; l < NEAREST_COLUMNS; ++l) {
        uint64_t to = uint64_t(candidate + l) * width + i;
        if (i < width && candidate + l < p) sum[to] = s[l], count[to] = c[l];
    }
}
KERNEL(nearest_f64);

// Where several rows are nearest: s over `draws` of them, drawn by Philox of (seed, row, draw), and their number. One
// thread a row and candidate finds the distance once more and then visits those that have it, by ascending index.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
drawn_f64(uint64_t* sum, uint32_t* count, const double* columns, const double* distance, const uint32_t* rank, uint32_t p, uint32_t n, uint32_t first, uint32_t width, uint64_t seed, uint32_t draws) {
    uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= uint64_t(p) * width || count[at] == 1) return;
    uint32_t i = uint32_t(at % width), row = first + i, tied = count[at], place = 0;
    const double* column = columns + at / width * n;
    auto apart = [&](uint32_t j) {
        return __dadd_rn(distance[uint64_t(j) * width + i], squared(column[row], column[j]));
    };
    double best = __longlong_as_double(0x7ff0000000000000ll);
    for (uint32_t j = 0; j < n; ++j)
        if (j != row) best = fmin(best, apart(j));
    uint64_t s = 0;
    for (uint32_t j = 0; j < n; ++j) {
        if (j == row || apart(j) != best) continue;
        for (uint32_t draw = 0; draw < draws; ++draw) {
            Words word = philox({{row, draw, 0, PHILOX_TIES}}, uint32_t(seed), uint32_t(seed >> 32));
            uint64_t below = uint64_t(word.w[1]) * tied >> 32;
            if ((uint64_t(word.w[0]) * tied + below) >> 32 == place) s += min(rank[row], rank[j]);
        }
        ++place;
    }
    sum[at] = s, count[at] = draws;
}
KERNEL(drawn_f64);

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
