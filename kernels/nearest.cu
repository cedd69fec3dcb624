/*
nearest.cu: for each row, its nearest other rows, as their number c and s = sum of min(R_i, R_j) over them (MATH.md, Eq.
1). Distances are f64, one correctly rounded operation at a time in the CPU's order, so the neighbours are exactly the
CPU's. With mean = 0, only the tied row of lowest index counts.

    for each row i, for each candidate column x:
        for all j != i:  if bound(i, j) > limit: continue;  d = D[j, i] + (x_i - x_j)^2
            d < best: best, s, c = d, min(R_i, R_j), 1;   d = best: s, c += min(R_i, R_j), 1

D is a panel [n, width]: the rows first .. first + width against all n. Results are [p, width]. Most pairs are skipped
by their bound in f32 (common/distance.h).
*/
#include "common/distance.h"
#include "common/philox.h"
#include "tiles.h"

// distance[a, b] = (fresh ? 0 : distance[a, b]) + sum over k chosen columns of (x_b - x_a)^2, in their order, for
// `height` rows a starting at `above` and `width` rows b starting at `first`.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
distance_f64(double* distance, const double* columns, uint32_t k, uint32_t n, uint32_t above, uint32_t height, uint32_t first, uint32_t width, uint32_t fresh) {
    uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= uint64_t(height) * width) return;
    double sum = fresh ? 0.0 : distance[at];
    for (uint32_t c = 0; c < k; ++c, columns += n)
        sum = __dadd_rn(sum, squared(columns[first + at % width], columns[above + at / width]));
    distance[at] = sum;
}
KERNEL(distance_f64);

// A greedy step over p candidates. A block has NEAREST_COLUMNS candidates and NEAREST_THREADS rows; rows j come in
// tiles.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
nearest_f64(uint64_t* sum, uint32_t* count, const double* columns, const float* slack, const double* distance, const uint32_t* rank, uint32_t p, uint32_t n, uint32_t first, uint32_t width, uint32_t mean) {
    struct Tile { float x[NEAREST_COLUMNS][NEAREST_THREADS]; uint32_t rank[NEAREST_THREADS]; };
    SHARED(Tile, tile);
    uint32_t groups = (p + NEAREST_COLUMNS - 1) / NEAREST_COLUMNS, candidate = blockIdx.x % groups * NEAREST_COLUMNS;
    uint32_t i = blockIdx.x / groups * NEAREST_THREADS + threadIdx.x, at = min(i, width - 1), row = first + at;
    auto number = [&](uint32_t l) { return min(candidate + l, p - 1); };
    auto column = [&](uint32_t l) { return columns + uint64_t(number(l)) * n; };
    float own[NEAREST_COLUMNS], e[NEAREST_COLUMNS], most[NEAREST_COLUMNS];
    double best[NEAREST_COLUMNS];
    uint64_t s[NEAREST_COLUMNS];
    uint32_t c[NEAREST_COLUMNS], own_rank = rank[row];
    for (uint32_t l = 0; l < NEAREST_COLUMNS; ++l) {
        own[l] = float(column(l)[row]), e[l] = slack[number(l)];
        best[l] = infinite(), most[l] = float(best[l]);
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
                if (bound(own[l], tile.x[l][t], e[l], near) > most[l]) continue;
                double d = __dadd_rn(chosen, squared(column(l)[row], column(l)[j]));
                uint32_t less = min(own_rank, tile.rank[t]);
                if (d < best[l] || c[l] == 0) {
                    best[l] = d, s[l] = less, c[l] = 1, most[l] = limit(d);
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

// Where several rows tie: s over `draws` of them, drawn by Philox of (seed, row, draw), and c = `draws`. One thread per
// row and candidate finds the least distance again, then visits the rows at that distance by ascending index.
extern "C" __global__ void __launch_bounds__(NEAREST_THREADS)
drawn_f64(uint64_t* sum, uint32_t* count, const double* columns, const double* distance, const uint32_t* rank, uint32_t p, uint32_t n, uint32_t first, uint32_t width, uint32_t across, uint32_t down, uint64_t seed, uint32_t draws) {
    uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= uint64_t(p) * width || count[at] == 1) return;
    uint32_t i = uint32_t(at % width), row = first + i, tied = count[at], place = 0;
    const double* column = columns + at / width * n;
    auto distance_to = [&](uint32_t j) {
        return __dadd_rn(distance[uint64_t(j) * across + uint64_t(i) * down], squared(column[row], column[j]));
    };
    double best = infinite();
    for (uint32_t j = 0; j < n; ++j)
        if (j != row) best = fmin(best, distance_to(j));
    uint64_t s = 0;
    for (uint32_t j = 0; j < n; ++j) {
        if (j == row || distance_to(j) != best) continue;
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

// The first step: columns sorted by (value, row), `size` elements each. One thread starts at one sorted position and
// walks outwards while the distance is the least. Different values can tie, because their squares can round to the same
// number.
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
