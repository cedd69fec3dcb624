/*
attention.cu: multi-head softmax attention over short sequences, its tangent and both adjoints (MATH.md, Eq. 9). Per
image and head: S = QK'/sqrt(width), P = softmax(S) by rows, O = PV. Here ' is the transpose, and _t a derivative along
v. Channels are packed as q, k, v, each heads x width. `saved` and all square matrices are [n, heads, t, t].

A block computes ROWS queries of one head, and holds their whole rows of a t x t matrix in shared memory:

    scores: s[row][key]  (+)= scale sum over channels of a[row][channel] b[key][channel]
    rows of s: softmax, or softmax's derivative; each warp has its own rows, so no barrier is needed
    mix:    out[row][channel] (+)= scale sum over keys of s[row][key] b[key][channel]

The forward pass also takes x and gives O in 16 bits; P and all sums stay floats. Both products read b one tile after another. A thread sums ROWS/4 rows by 4 keys (2 channels) in registers. Sums over
queries (the adjoints of k and v) are `mix` too, with the matrix stored and read back by columns. Products are f32, and
sums over a row f64. Every sum has a fixed order.
*/
#include "common/element.h"
#include "common/warp.h"
#include "tiles.h"

constexpr uint32_t WARPS = ATTENTION_THREADS / 32;
constexpr uint32_t DEPTH = 32, KEYS = 128;  // tile of scores: channels, keys
constexpr uint32_t SIDE = 64;               // tile of mix: keys, channels

// A t x width matrix in a buffer; `stride` is that of its rows.
template <class T> struct Part { const T* at; uint32_t stride; };

template <uint32_t ROWS> struct Scores { float row[ROWS][ATTENTION_TOKENS]; };
template <uint32_t ROWS> struct Tile {
    float a[ROWS][DEPTH];
    float b[KEYS * (DEPTH + 1)];  // the tile of mix is smaller
};
static_assert(SIDE * SIDE <= KEYS * (DEPTH + 1), "mix's tile does not fit");

// One head of one image, and the first row of this block.
struct Head {
    uint32_t t, width, dim, first, packed, out, square, keys;  // the last four: offsets in x, y, the square matrices and the mask
    DEVICE Head(uint32_t t, uint32_t heads, uint32_t width, uint32_t rows) : t(t), width(width), dim(heads * width) {
        uint32_t blocks = (t + rows - 1) / rows, head = blockIdx.x / blocks, image = head / heads;
        first = blockIdx.x % blocks * rows;
        packed = image * t * 3 * dim + head % heads * width;
        out = image * t * dim + head % heads * width;
        square = head * t * t;
        keys = image * t;
    }
    template <class T> DEVICE Part<T> of(const T* x, uint32_t part) const { return {x + packed + part * dim, 3 * dim}; }
    template <class T> DEVICE Part<T> of(const T* y) const { return {y + out, dim}; }
    DEVICE float scale() const { return 1.0f / sqrtf(float(width)); }
};

template <uint32_t ROWS, class T>
DEVICE void scores(Scores<ROWS>& s, Tile<ROWS>& tile, const Head& h, Part<T> a, Part<T> b, float scale, bool add) {
    constexpr uint32_t EACH = ROWS / WARPS;
    uint32_t own = threadIdx.x / 32 * EACH;
    for (uint32_t key = 0; key < h.t; key += KEYS) {
        float sum[EACH][4] = {};
        for (uint32_t channel = 0; channel < h.width; channel += DEPTH) {
            __syncthreads();
            for (uint32_t i = threadIdx.x; i < ROWS * DEPTH; i += ATTENTION_THREADS) {
                uint32_t row = h.first + i / DEPTH, c = channel + i % DEPTH;
                tile.a[i / DEPTH][i % DEPTH] = row < h.t && c < h.width ? load(a.at + row * a.stride + c) : 0.0f;
            }
            for (uint32_t i = threadIdx.x; i < KEYS * DEPTH; i += ATTENTION_THREADS) {
                uint32_t row = key + i / DEPTH, c = channel + i % DEPTH;
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
                if (at < h.t) s.row[own + r][at] = (add ? s.row[own + r][at] : 0.0f) + scale * sum[r][j];
            }
    }
    __syncwarp();
}

template <uint32_t ROWS, class T>
DEVICE void mix(T* out, uint32_t stride, const Scores<ROWS>& s, Tile<ROWS>& tile, const Head& h, Part<T> b, float scale, bool add) {
    constexpr uint32_t EACH = ROWS / WARPS;
    uint32_t own = threadIdx.x / 32 * EACH;
    for (uint32_t channel = 0; channel < h.width; channel += SIDE) {
        float sum[EACH][2] = {};
        for (uint32_t key = 0; key < h.t; key += SIDE) {
            __syncthreads();
            for (uint32_t i = threadIdx.x; i < SIDE * SIDE; i += ATTENTION_THREADS) {
                uint32_t row = key + i / SIDE, c = channel + i % SIDE;
                tile.b[i] = row < h.t && c < h.width ? load(b.at + row * b.stride + c) : 0.0f;
            }
            __syncthreads();
            for (uint32_t k = 0; k < min(SIDE, h.t - key); ++k)
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

// Calls f(row of s, row of the square matrix) for this warp's rows of the head.
template <uint32_t ROWS, class F> DEVICE void each_row(const Head& h, F f) {
    for (uint32_t r = 0; r < ROWS / WARPS; ++r) {
        uint32_t row = threadIdx.x / 32 * (ROWS / WARPS) + r;
        if (h.first + row < h.t) f(row, h.square + (h.first + row) * h.t);
    }
    __syncwarp();
}

// s = p (s - mean of s under p) by rows: the derivative of softmax, which is its own transpose.
template <uint32_t ROWS> DEVICE void through_softmax(Scores<ROWS>& s, const Head& h, const float* p) {
    each_row<ROWS>(h, [&](uint32_t row, uint32_t square) {
        float* d = s.row[row];
        double mean = warp_sum(h.t, [&](uint32_t k) { return double(p[square + k]) * d[k]; });
        for (uint32_t k = lane(); k < h.t; k += 32) d[k] = float(p[square + k] * (d[k] - mean));
    });
}

// Attention within windows of side x side tokens, which come column by column: `rows` by `columns` of them are an image.
struct Windows {
    uint32_t side, rows, columns, down, right;
    DEVICE uint32_t offset(uint32_t query, uint32_t key) const {  // the row of the table of relative positions
        return (query % side + side - 1 - key % side) * (2 * side - 1) + query / side + side - 1 - key / side;
    }
    DEVICE bool were_apart(uint32_t window, uint32_t a, uint32_t b) const {  // before the cyclic shift
        bool low = window / columns % rows + 1 == rows, far = window % columns + 1 == columns;
        bool row = low && (a % side + down >= side) != (b % side + down >= side);
        return row || (far && (a / side + right >= side) != (b / side + right >= side));
    }
};

// Writes O to y [n, t, heads * width], and P to saved, unless that is null. The mask is [n, t] or null, the table [(2 side - 1)^2, heads] or null.
template <class T>
DEVICE void attention(T* y, float* saved, const T* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) {
    SHARED(Scores<ATTENTION_ROWS>, s);
    SHARED(Tile<ATTENTION_ROWS>, tile);
    Head h(t, heads, width, ATTENTION_ROWS);
    scores(s, tile, h, h.of(x, 0), h.of(x, 1), h.scale(), false);
    each_row<ATTENTION_ROWS>(h, [&](uint32_t row, uint32_t square) {
        float* p = s.row[row];
        if (table) {
            Windows w{side, rows, columns, down, right};
            uint32_t head = h.square / (t * t), query = (square - h.square) / t;
            for (uint32_t k = lane(); k < t; k += 32)
                p[k] = p[k] + table[w.offset(query, k) * heads + head % heads] + (w.were_apart(head / heads, query, k) ? -100.0f : 0.0f);
            __syncwarp();
        }
        if (mask) {
            for (uint32_t k = lane(); k < t; k += 32)
                if (!mask[h.keys + k]) p[k] = -INFINITY;
            __syncwarp();
        }
        float top = warp_max(p, t);
        bool none = mask && top == -INFINITY;  // no key is left: the row is zeros
        __syncwarp();
        for (uint32_t k = lane(); k < t; k += 32) p[k] = none ? 0.0f : expf(p[k] - top);
        double sum = none ? 1.0 : warp_sum(t, [&](uint32_t k) { return double(p[k]); });
        for (uint32_t k = lane(); k < t; k += 32) {
            p[k] = float(p[k] / sum);
            if (saved) saved[square + k] = p[k];
        }
    });
    mix(y + h.out, h.dim, s, tile, h, h.of(x, 2), 1.0f, false);
}
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_f32(float* y, float* saved, const float* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention(y, saved, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_f32);
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_bf16(bf16* y, float* saved, const bf16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention(y, saved, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_bf16);
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_f16(f16* y, float* saved, const f16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention(y, saved, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_f16);

// Writes O_t = P_t V + P V_t to ty.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_tangent_f32(float* ty, const float* tx, const float* x, const float* saved, uint32_t t, uint32_t heads, uint32_t width) {
    SHARED(Scores<ATTENTION_ROWS>, s);
    SHARED(Tile<ATTENTION_ROWS>, tile);
    Head h(t, heads, width, ATTENTION_ROWS);
    scores(s, tile, h, h.of(tx, 0), h.of(x, 1), h.scale(), false);
    scores(s, tile, h, h.of(x, 0), h.of(tx, 1), h.scale(), true);
    through_softmax(s, h, saved);
    mix(ty + h.out, h.dim, s, tile, h, h.of(x, 2), 1.0f, false);
    each_row<ATTENTION_ROWS>(h, [&](uint32_t row, uint32_t square) {
        for (uint32_t k = lane(); k < t; k += 32) s.row[row][k] = saved[square + k];
    });
    mix(ty + h.out, h.dim, s, tile, h, h.of(tx, 2), 1.0f, true);
}
KERNEL(attention_tangent_f32);

// Writes dS = P (D - mean of D under P), D = dO V', to ds; dQ += dS K/sqrt(width).
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_backward_f32(float* dx, float* ds, const float* dy, const float* x, const float* saved, uint32_t t, uint32_t heads, uint32_t width) {
    SHARED(Scores<ATTENTION_ROWS>, s);
    SHARED(Tile<ATTENTION_ROWS>, tile);
    Head h(t, heads, width, ATTENTION_ROWS);
    scores(s, tile, h, h.of(dy), h.of(x, 2), 1.0f, false);
    through_softmax(s, h, saved);
    each_row<ATTENTION_ROWS>(h, [&](uint32_t row, uint32_t square) {
        for (uint32_t k = lane(); k < t; k += 32) ds[square + k] = s.row[row][k];
    });
    mix(dx + h.packed, 3 * h.dim, s, tile, h, h.of(x, 1), h.scale(), true);
}
KERNEL(attention_backward_f32);

// Part 1: dK += M'Q/sqrt(width), `with` = x. Part 2: dV += M'dO, `with` = dy. M are the square matrices; blocks split
// the keys.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_columns_f32(float* dx, const float* squares, const float* with, uint32_t t, uint32_t heads, uint32_t width, uint32_t part) {
    SHARED(Scores<ATTENTION_ROWS>, s);
    SHARED(Tile<ATTENTION_ROWS>, tile);
    Head h(t, heads, width, ATTENTION_ROWS);
    for (uint32_t i = threadIdx.x; i < ATTENTION_ROWS * t; i += ATTENTION_THREADS) {
        uint32_t query = i / ATTENTION_ROWS, key = i % ATTENTION_ROWS;
        s.row[key][query] = h.first + key < t ? squares[h.square + query * t + h.first + key] : 0.0f;
    }
    float* out = dx + h.packed + part * h.dim;
    mix(out, 3 * h.dim, s, tile, h, part == 1 ? h.of(with, 0) : h.of(with), part == 1 ? h.scale() : 1.0f, true);
}
KERNEL(attention_columns_f32);

// The derivative of attention_backward along x_t and dO_t: writes P_t, dS and dS_t, and adds dQ_t. With r the row means
// of D under P: dS_t = P_t (D - r) + P (D_t - r_t), r_t = rowsum(P_t D + P D_t).
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_tangent_backward_f32(float* dxt, float* pt, float* ds, float* dst, const float* dyt, const float* dy, const float* tx, const float* x, const float* saved, uint32_t t, uint32_t heads, uint32_t width) {
    SHARED(Scores<ATTENTION_FEW>, moved);
    SHARED(Scores<ATTENTION_FEW>, d);
    SHARED(Scores<ATTENTION_FEW>, d_t);
    SHARED(Tile<ATTENTION_FEW>, tile);
    Head h(t, heads, width, ATTENTION_FEW);
    scores(moved, tile, h, h.of(tx, 0), h.of(x, 1), h.scale(), false);
    scores(moved, tile, h, h.of(x, 0), h.of(tx, 1), h.scale(), true);
    through_softmax(moved, h, saved);
    scores(d, tile, h, h.of(dy), h.of(x, 2), 1.0f, false);
    scores(d_t, tile, h, h.of(dyt), h.of(x, 2), 1.0f, false);
    scores(d_t, tile, h, h.of(dy), h.of(tx, 2), 1.0f, true);
    each_row<ATTENTION_FEW>(h, [&](uint32_t row, uint32_t square) {
        float *m = moved.row[row], *a = d.row[row], *b = d_t.row[row];
        const float* p = saved + square;
        double mean = warp_sum(t, [&](uint32_t k) { return double(p[k]) * a[k]; });
        double mean_t = warp_sum(t, [&](uint32_t k) { return double(m[k]) * a[k] + double(p[k]) * b[k]; });
        for (uint32_t k = lane(); k < t; k += 32) {
            double centred = a[k] - mean;
            pt[square + k] = m[k];
            dst[square + k] = b[k] = float(m[k] * centred + p[k] * (b[k] - mean_t));
            ds[square + k] = a[k] = float(p[k] * centred);
        }
    });
    mix(dxt + h.packed, 3 * h.dim, d_t, tile, h, h.of(x, 1), h.scale(), true);
    mix(dxt + h.packed, 3 * h.dim, d, tile, h, h.of(tx, 1), h.scale(), true);
}
KERNEL(attention_tangent_backward_f32);

// dtable [(2 side - 1)^2, heads] += the sums of the squares over n windows and the pairs of tokens that a row of the table is
// for, in f64, in a fixed order: a warp per value.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
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
