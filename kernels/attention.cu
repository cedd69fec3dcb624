/*
attention.cu: multi-head softmax attention, its tangent and both adjoints (MATH.md, Eq. 9). Per image and head: S =
QK'/sqrt(width), P = softmax(S) by rows, O = PV. Here ' is the transpose, and _t a derivative along v. `saved` and all square
matrices are [n, heads, t, t].

A block computes ROWS queries of one head, and holds their rows of a t x t matrix in shared memory, ATTENTION_KEYS keys at a
time:

    for each part of the keys:
        scores: s[row][key]  (+)= scale sum over channels of a[row][channel] b[key][channel]
        what softmax, or its derivative, needs of whole rows: the largest score, sums
    for each part of the keys, with the scores computed again where there are several:
        rows of s: softmax, or softmax's derivative; each warp has its own rows, so no barrier is needed
        mix:    out[row][channel] (+)= scale sum over keys of s[row][key] b[key][channel]

The forward pass also takes x and gives O in 16 bits, of one part, for heads that attention_tiles.cu does not take; P and all
sums stay floats. Both products read b one tile after another. A thread sums ROWS/4 rows by 4 keys (2 channels) in registers.
Sums over queries (the adjoints of k and v) are `mix` too, with the matrix stored and read back by columns. Products are f32,
and sums over a row f64. Every sum has a fixed order. What bounds it is the f32 arithmetic of the products; five blocks run on a multiprocessor.
*/
#include "common/attention.h"
#include "common/warp.h"
#include "tiles.h"

constexpr uint32_t WARPS = ATTENTION_THREADS / 32;
constexpr uint32_t DEPTH = 32, KEYS = 128;  // tile of scores: channels, keys
constexpr uint32_t SIDE = 64;               // tile of mix: keys, channels

template <uint32_t ROWS> struct Scores { float row[ROWS][ATTENTION_KEYS]; };
template <uint32_t ROWS> struct Tile {
    float a[ROWS][DEPTH];
    float b[KEYS * (DEPTH + 1)];  // the tile of mix is smaller
};
static_assert(SIDE * SIDE <= KEYS * (DEPTH + 1), "mix's tile does not fit");

// Some keys of a head: `count` from `first` on.
struct Keys {
    uint32_t first, count;
    DEVICE Keys(uint32_t first, uint32_t t) : first(first), count(min(ATTENTION_KEYS, t - first)) {}
};
// Calls f for the parts of t keys, one after another.
template <class F> DEVICE void each_part(uint32_t t, F f) {
    for (uint32_t first = 0; first < t; first += ATTENTION_KEYS) f(Keys(first, t));
}

template <uint32_t ROWS, class T>
DEVICE void scores(Scores<ROWS>& s, Tile<ROWS>& tile, const Head& h, Keys keys, Part<T> a, Part<T> b, float scale, bool add) {
    constexpr uint32_t EACH = ROWS / WARPS;
    uint32_t own = threadIdx.x / 32 * EACH;
    for (uint32_t key = 0; key < keys.count; key += KEYS) {
        float sum[EACH][4] = {};
        for (uint32_t channel = 0; channel < h.width; channel += DEPTH) {
            __syncthreads();
            for (uint32_t i = threadIdx.x; i < ROWS * DEPTH; i += ATTENTION_THREADS) {
                uint32_t row = h.first + i / DEPTH, c = channel + i % DEPTH;
                tile.a[i / DEPTH][i % DEPTH] = row < h.t && c < h.width ? load(a.at + row * a.stride + c) : 0.0f;
            }
            for (uint32_t i = threadIdx.x; i < KEYS * DEPTH; i += ATTENTION_THREADS) {
                uint32_t row = keys.first + key + i / DEPTH, c = channel + i % DEPTH;
                tile.b[i / DEPTH * (DEPTH + 1) + i % DEPTH] = row < h.t && c < h.width ? load(b.at + row * b.stride + c) : 0.0f;
            }
            __syncthreads();
            for (uint32_t c = 0; c < DEPTH; ++c) {
                float other[4];
                for (uint32_t j = 0; j < 4; ++j) other[j] = tile.b[(lane() + 32 * j) * (DEPTH + 1) + c];
                for (uint32_t r = 0; r < EACH; ++r)
                    for (uint32_t j = 0; j < 4; ++j) sum[r][j] += tile.a[own + r][c] * other[j];
            }
        }
        for (uint32_t r = 0; r < EACH; ++r)
            for (uint32_t j = 0; j < 4; ++j) {
                uint32_t at = key + lane() + 32 * j;
                if (at < keys.count) s.row[own + r][at] = (add ? s.row[own + r][at] : 0.0f) + scale * sum[r][j];
            }
    }
    __syncwarp();
}

template <uint32_t ROWS, class T>
DEVICE void mix(T* out, uint32_t stride, const Scores<ROWS>& s, Tile<ROWS>& tile, const Head& h, Keys keys, Part<T> b, float scale, bool add) {
    constexpr uint32_t EACH = ROWS / WARPS;
    uint32_t own = threadIdx.x / 32 * EACH;
    for (uint32_t channel = 0; channel < h.width; channel += SIDE) {
        float sum[EACH][2] = {};
        for (uint32_t key = 0; key < keys.count; key += SIDE) {
            __syncthreads();
            for (uint32_t i = threadIdx.x; i < SIDE * SIDE; i += ATTENTION_THREADS) {
                uint32_t row = keys.first + key + i / SIDE, c = channel + i % SIDE;
                tile.b[i] = row < h.t && c < h.width ? load(b.at + row * b.stride + c) : 0.0f;
            }
            __syncthreads();
            for (uint32_t k = 0; k < min(SIDE, keys.count - key); ++k)
                for (uint32_t r = 0; r < EACH; ++r)
                    for (uint32_t j = 0; j < 2; ++j) sum[r][j] += s.row[own + r][key + k] * tile.b[k * SIDE + lane() + 32 * j];
        }
        for (uint32_t r = 0; r < EACH; ++r)
            for (uint32_t j = 0; j < 2; ++j) {
                uint32_t row = h.first + own + r, c = channel + lane() + 32 * j;
                if (row >= h.t || c >= h.width) continue;
                T* to = out + row * stride + c;
                store(to, (add ? load(to) : 0.0f) + scale * sum[r][j]);
            }
    }
    __syncwarp();
}

// Calls f(row of s, row of the square matrix, number) for this warp's rows of the head.
template <uint32_t ROWS, class F> DEVICE void each_row(const Head& h, F f) {
    UNROLL for (uint32_t r = 0; r < ROWS / WARPS; ++r) {
        uint32_t row = threadIdx.x / 32 * (ROWS / WARPS) + r;
        if (h.first + row < h.t) f(row, h.square + (h.first + row) * h.t, r);
    }
    __syncwarp();
}

// The rows of the square matrix, for the keys of a part.
DEVICE const float* part_of(const float* squares, uint32_t square, Keys keys) { return squares + square + keys.first; }
DEVICE float* part_of(float* squares, uint32_t square, Keys keys) { return squares + square + keys.first; }

// For each row of a warp a value, which every lane has.
template <uint32_t ROWS, class T> using PerRow = T[ROWS / WARPS];

// s = p (s - mean of s under p) by rows: the derivative of softmax, which is its own transpose. make(keys) computes s; done(keys)
// is called when s is ready.
template <uint32_t ROWS, class Make, class Done>
DEVICE void through_softmax(Scores<ROWS>& s, const Head& h, const float* p, Make make, Done done) {
    PerRow<ROWS, double> mean = {};
    each_part(h.t, [&](Keys keys) {
        make(keys);
        each_row<ROWS>(h, [&](uint32_t row, uint32_t square, uint32_t r) {
            const float *d = s.row[row], *of = part_of(p, square, keys);
            mean[r] += warp_sum(keys.count, [&](uint32_t k) { return double(of[k]) * d[k]; });
        });
    });
    each_part(h.t, [&](Keys keys) {
        if (h.t > ATTENTION_KEYS) make(keys);
        each_row<ROWS>(h, [&](uint32_t row, uint32_t square, uint32_t r) {
            float* d = s.row[row];
            const float* of = part_of(p, square, keys);
            for (uint32_t k = lane(); k < keys.count; k += 32) d[k] = float(of[k] * (d[k] - mean[r]));
        });
        done(keys);
    });
}

// Writes O to y [n, t, heads * width], and P to saved, unless that is null. The mask is [n, t] or null, the table [(2 side - 1)^2, heads] or null.
template <class T>
DEVICE void attention(T* y, float* saved, const T* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) {
    SHARED(Scores<ATTENTION_ROWS>, s);
    SHARED(Tile<ATTENTION_ROWS>, tile);
    Head h(t, heads, width, ATTENTION_ROWS);
    auto make = [&](Keys keys) {
        scores(s, tile, h, keys, h.of(x, 0), h.of(x, 1), h.scale(), false);
        if (!table && !mask) return;
        each_row<ATTENTION_ROWS>(h, [&](uint32_t row, uint32_t square, uint32_t) {
            float* p = s.row[row];
            Windows w{side, rows, columns, down, right};
            uint32_t head = h.square / (t * t), query = (square - h.square) / t;
            for (uint32_t k = lane(); k < keys.count; k += 32) {
                uint32_t key = keys.first + k;
                if (table) p[k] = p[k] + table[w.offset(query, key) * heads + head % heads] + (w.were_apart(head / heads, query, key) ? -100.0f : 0.0f);
                if (mask && !mask[h.keys + key]) p[k] = -INFINITY;
            }
        });
    };
    PerRow<ATTENTION_ROWS, float> top = {};  // the largest score so far
    PerRow<ATTENTION_ROWS, double> sum = {};  // of exp(score - top)
    each_part(t, [&](Keys keys) {
        make(keys);
        each_row<ATTENTION_ROWS>(h, [&](uint32_t row, uint32_t, uint32_t r) {
            float *p = s.row[row], largest = warp_max(p, keys.count);
            if (keys.first == 0 || largest > top[r]) {
                sum[r] = keys.first && top[r] != -INFINITY ? sum[r] * expf(top[r] - largest) : 0.0;
                top[r] = largest;
            }
            __syncwarp();
            if (mask && top[r] == -INFINITY) return;  // no key yet
            sum[r] += warp_sum(keys.count, [&](uint32_t k) { return double(p[k] = expf(p[k] - top[r])); });
        });
    });
    each_part(t, [&](Keys keys) {
        if (t > ATTENTION_KEYS) make(keys);
        each_row<ATTENTION_ROWS>(h, [&](uint32_t row, uint32_t square, uint32_t r) {
            float* p = s.row[row];
            bool none = mask && top[r] == -INFINITY;  // no key is left: the row is zeros
            for (uint32_t k = lane(); k < keys.count; k += 32) {
                float weight = t > ATTENTION_KEYS ? expf(p[k] - top[r]) : p[k];
                p[k] = none ? 0.0f : float(weight / sum[r]);
                if (saved) part_of(saved, square, keys)[k] = p[k];
            }
        });
        mix(y + h.out, h.dim, s, tile, h, keys, h.of(x, 2), 1.0f, keys.first > 0);
    });
}
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 5)
attention_f32(float* y, float* saved, const float* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention(y, saved, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_f32);
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 5)
attention_bf16(bf16* y, float* saved, const bf16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention(y, saved, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_bf16);
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 5)
attention_f16(f16* y, float* saved, const f16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention(y, saved, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_f16);

// Writes O_t = P_t V + P V_t to ty.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 5)
attention_tangent_f32(float* ty, const float* tx, const float* x, const float* saved, uint32_t t, uint32_t heads, uint32_t width) {
    SHARED(Scores<ATTENTION_ROWS>, s);
    SHARED(Tile<ATTENTION_ROWS>, tile);
    Head h(t, heads, width, ATTENTION_ROWS);
    auto make = [&](Keys keys) {
        scores(s, tile, h, keys, h.of(tx, 0), h.of(x, 1), h.scale(), false);
        scores(s, tile, h, keys, h.of(x, 0), h.of(tx, 1), h.scale(), true);
    };
    through_softmax(s, h, saved, make, [&](Keys keys) {
        mix(ty + h.out, h.dim, s, tile, h, keys, h.of(x, 2), 1.0f, keys.first > 0);
        each_row<ATTENTION_ROWS>(h, [&](uint32_t row, uint32_t square, uint32_t) {
            for (uint32_t k = lane(); k < keys.count; k += 32) s.row[row][k] = part_of(saved, square, keys)[k];
        });
        mix(ty + h.out, h.dim, s, tile, h, keys, h.of(tx, 2), 1.0f, true);
    });
}
KERNEL(attention_tangent_f32);

// Writes dS = P (D - mean of D under P), D = dO V', to ds; dQ += dS K/sqrt(width).
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 5)
attention_backward_f32(float* dx, float* ds, const float* dy, const float* x, const float* saved, uint32_t t, uint32_t heads, uint32_t width) {
    SHARED(Scores<ATTENTION_ROWS>, s);
    SHARED(Tile<ATTENTION_ROWS>, tile);
    Head h(t, heads, width, ATTENTION_ROWS);
    auto make = [&](Keys keys) { scores(s, tile, h, keys, h.of(dy), h.of(x, 2), 1.0f, false); };
    through_softmax(s, h, saved, make, [&](Keys keys) {
        each_row<ATTENTION_ROWS>(h, [&](uint32_t row, uint32_t square, uint32_t) {
            for (uint32_t k = lane(); k < keys.count; k += 32) part_of(ds, square, keys)[k] = s.row[row][k];
        });
        mix(dx + h.packed, 3 * h.dim, s, tile, h, keys, h.of(x, 1), h.scale(), true);
    });
}
KERNEL(attention_backward_f32);

// Part 1: dK += M'Q/sqrt(width), `with` = x. Part 2: dV += M'dO, `with` = dy. M are the square matrices; blocks split
// the keys, and the queries come in parts.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 5)
attention_columns_f32(float* dx, const float* squares, const float* with, uint32_t t, uint32_t heads, uint32_t width, uint32_t part) {
    SHARED(Scores<ATTENTION_ROWS>, s);
    SHARED(Tile<ATTENTION_ROWS>, tile);
    Head h(t, heads, width, ATTENTION_ROWS);
    float* out = dx + h.packed + part * h.dim;
    each_part(t, [&](Keys queries) {
        for (uint32_t i = threadIdx.x; i < ATTENTION_ROWS * queries.count; i += ATTENTION_THREADS) {
            uint32_t query = i / ATTENTION_ROWS, key = i % ATTENTION_ROWS;
            s.row[key][query] = h.first + key < t ? squares[h.square + (queries.first + query) * t + h.first + key] : 0.0f;
        }
        mix(out, 3 * h.dim, s, tile, h, queries, part == 1 ? h.of(with, 0) : h.of(with), part == 1 ? h.scale() : 1.0f, true);
        __syncthreads();  // all have read s before the next part is written
    });
}
KERNEL(attention_columns_f32);

// The derivative of attention_backward along x_t and dO_t: writes P_t, dS and dS_t, and adds dQ_t. With r the row means
// of D under P: dS_t = P_t (D - r) + P (D_t - r_t), r_t = rowsum(P_t D + P D_t).
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 5)
attention_tangent_backward_f32(float* dxt, float* pt, float* ds, float* dst, const float* dyt, const float* dy, const float* tx, const float* x, const float* saved, uint32_t t, uint32_t heads, uint32_t width) {
    SHARED(Scores<ATTENTION_FEW>, moved);
    SHARED(Scores<ATTENTION_FEW>, d);
    SHARED(Scores<ATTENTION_FEW>, d_t);
    SHARED(Tile<ATTENTION_FEW>, tile);
    Head h(t, heads, width, ATTENTION_FEW);
    auto moves = [&](Keys keys) {
        scores(moved, tile, h, keys, h.of(tx, 0), h.of(x, 1), h.scale(), false);
        scores(moved, tile, h, keys, h.of(x, 0), h.of(tx, 1), h.scale(), true);
    };
    auto adjoints = [&](Keys keys) {
        scores(d, tile, h, keys, h.of(dy), h.of(x, 2), 1.0f, false);
        scores(d_t, tile, h, keys, h.of(dyt), h.of(x, 2), 1.0f, false);
        scores(d_t, tile, h, keys, h.of(dy), h.of(tx, 2), 1.0f, true);
    };
    PerRow<ATTENTION_FEW, double> mean = {}, mean_t = {};
    through_softmax(moved, h, saved, moves, [&](Keys keys) {
        adjoints(keys);
        each_row<ATTENTION_FEW>(h, [&](uint32_t row, uint32_t square, uint32_t r) {
            const float *m = moved.row[row], *a = d.row[row], *b = d_t.row[row], *p = part_of(saved, square, keys);
            for (uint32_t k = lane(); k < keys.count; k += 32) part_of(pt, square, keys)[k] = m[k];
            mean[r] += warp_sum(keys.count, [&](uint32_t k) { return double(p[k]) * a[k]; });
            mean_t[r] += warp_sum(keys.count, [&](uint32_t k) { return double(m[k]) * a[k] + double(p[k]) * b[k]; });
        });
    });
    each_part(t, [&](Keys keys) {
        if (t > ATTENTION_KEYS) adjoints(keys);
        each_row<ATTENTION_FEW>(h, [&](uint32_t row, uint32_t square, uint32_t r) {
            float *a = d.row[row], *b = d_t.row[row];
            const float *m = part_of(pt, square, keys), *p = part_of(saved, square, keys);
            for (uint32_t k = lane(); k < keys.count; k += 32) {
                double centred = a[k] - mean[r];
                part_of(dst, square, keys)[k] = b[k] = float(m[k] * centred + p[k] * (b[k] - mean_t[r]));
                part_of(ds, square, keys)[k] = a[k] = float(p[k] * centred);
            }
        });
        mix(dxt + h.packed, 3 * h.dim, d_t, tile, h, keys, h.of(x, 1), h.scale(), true);
        mix(dxt + h.packed, 3 * h.dim, d, tile, h, keys, h.of(tx, 1), h.scale(), true);
    });
}
KERNEL(attention_tangent_backward_f32);

// dtable [(2 side - 1)^2, heads] += the sums of the squares over n windows and the pairs of tokens that a row of the table is
// for, in f64, in a fixed order: a warp per value.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 5)
attention_table_f32(float* dtable, const float* squares, uint32_t n, uint32_t heads, uint32_t side) {
    uint32_t at = blockIdx.x * WARPS + threadIdx.x / 32, width = 2 * side - 1, row = at / heads;
    if (row >= width * width) return;
    uint32_t down = row / width, right = row % width, last = side - 1, t = side * side;
    uint32_t high = side - (down > last ? down - last : last - down), wide = side - (right > last ? right - last : last - right);
    double sum = warp_sum(n * high * wide, [&](uint32_t i) {
        uint32_t r = i % high, c = i / high % wide, window = i / high / wide;
        uint32_t query_row = down > last ? r + down - last : r, key_row = query_row + last - down;
        uint32_t query_column = right > last ? c + right - last : c, key_column = query_column + last - right;
        uint32_t query = query_column * side + query_row, key = key_column * side + key_row;
        return double(squares[((window * heads + at % heads) * t + query) * t + key]);
    });
    if (lane() == 0) dtable[at] += float(sum);
}
KERNEL(attention_table_f32);
