/*
attention_tiles.cu: the forward pass of attention with values of 16 bits, on tensor cores (MATH.md, Eq. 9; attention.cu has
the other passes). K and V of a head come to shared memory tile by tile; scores and weights stay in registers.

    a block has BLOCK queries of one head, and each of its four warps 16 of them, with Q in registers
    for each tile of BLOCK keys: copies of the next tile are started, where there are two stages
        S = Q K', scaled; what a table or a mask says is added
        base = the largest score of each row so far; O and the sum of weights so far are scaled to it
        P = 2^(S - base), summed in f32, rounded to 16 bits;  O += P V
    O / sum of P

Weights are rounded relative to the largest score so far, once each; tensor cores cut off what falls below the accumulator
when they add a tile to O. Sums have a fixed order. Groups of 16 keys beyond the last are left out. Heads are padded to 32, 64 or
128 channels. Shared memory: two stages of 10, 18 KB, or one of 34 KB. What bounds it is the
tensor cores and the powers of two.
*/
#include "common/attention.h"
#include "tiles.h"

constexpr uint32_t BLOCK = ATTENTION_BLOCK;
static_assert(BLOCK == 64 && ATTENTION_THREADS == 128, "four warps of 16 queries, tiles of four groups of 16 keys");

// BLOCK rows of up to W channels. Eight more, so that the 8 rows of a matrix that ldmatrix reads are on different banks.
template <uint32_t W> struct alignas(16) Channels { uint16_t of[BLOCK][W + 8]; };

DEVICE void multiply(bf16, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma_bf16(d, a, b0, b1); }
DEVICE void multiply(f16, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma_f16(d, a, b0, b1); }

// Starts the copies of rows `first`.. of a t x width matrix; zeros beyond it. With `wide`, 16 bytes at a time.
template <uint32_t W, class T> DEVICE void fill(Channels<W>& to, Part<T> from, uint32_t first, uint32_t t, uint32_t width, bool wide) {
    for (uint32_t i = threadIdx.x; i < BLOCK * W / 8; i += ATTENTION_THREADS) {
        uint32_t row = i / (W / 8), c = i % (W / 8) * 8;
        const T* values = from.at + (first + row) * from.stride + c;
        if (wide) {
            bool ok = first + row < t && c < width;
            copy_async<16>(&to.of[row][c], ok ? values : from.at, ok);
        } else {
            for (uint32_t e = 0; e < 8; ++e) to.of[row][c + e] = first + row < t && c + e < width ? values[e].bits : 0;
        }
    }
}

// The largest (or the sum) of the four lanes that share a row.
DEVICE float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

template <uint32_t W, uint32_t STAGES> struct Stages {
    struct { Channels<W> k, v; } of[STAGES];
};

template <uint32_t W, uint32_t STAGES, class T>
DEVICE void attention_tiles(T* y, const T* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) {
    using Shared = Stages<W, STAGES>;
    SHARED(Shared, stages);
    constexpr float LOG2E = 1.44269504f;
    Head h(t, heads, width, BLOCK);
    Windows windows{side, rows, columns, down, right};
    Part<T> keys = h.of(x, 1), values = h.of(x, 2);
    uint32_t lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16, head = h.square / (t * t);
    bool wide = width % 8 == 0 && uint64_t(x) % 16 == 0, live = h.first + own < t;
    float scale = h.scale() * LOG2E;

    uint32_t q[W / 16][4];
    fill(stages.of[0].k, h.of(x, 0), h.first, t, width, wide);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    UNROLL for (uint32_t c = 0; c < W / 16; ++c) ldmatrix(q[c], &stages.of[0].k.of[own + lane % 16][c * 16 + lane / 16 * 8]);
    __syncthreads();  // Q has been read

    auto start = [&](uint32_t key, uint32_t stage) {
        fill(stages.of[stage].k, keys, key, t, width, wide);
        fill(stages.of[stage].v, values, key, t, width, wide);
        copy_commit();
    };
    float o[W / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    start(0, 0);
    for (uint32_t key = 0, stage = 0; key < t; key += BLOCK, stage = (stage + 1) % STAGES) {
        bool more = key + BLOCK < t;
        if (STAGES > 1 && more) {
            start(key + BLOCK, (stage + 1) % STAGES);
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();  // the tile has arrived for all threads
        const auto& tile = stages.of[stage];
        uint32_t groups = (min(BLOCK, t - key) + 15) / 16;
        if (live) {
            float s[BLOCK / 8][4], largest[2] = {-INFINITY, -INFINITY};
            UNROLL for (uint32_t g = 0; g < BLOCK / 16; ++g) {
                UNROLL for (uint32_t e = 0; e < 4; ++e) s[2 * g][e] = s[2 * g + 1][e] = 0.0f;
                if (g >= groups) continue;
                UNROLL for (uint32_t c = 0; c < W / 16; ++c) {
                    uint32_t b[4];
                    ldmatrix(b, &tile.k.of[g * 16 + lane % 16][c * 16 + lane / 16 * 8]);
                    multiply(T{}, s[2 * g], q[c], b[0], b[2]);
                    multiply(T{}, s[2 * g + 1], q[c], b[1], b[3]);
                }
            }
            // Calls f(score, its row and its column in the tile).
            auto each_score = [&](auto f) {
                UNROLL for (uint32_t j = 0; j < BLOCK / 8; ++j)
                    UNROLL for (uint32_t e = 0; e < 4; ++e) f(s[j][e], own + lane / 4 + e / 2 * 8, j * 8 + lane % 4 * 2 + e % 2);
            };
            each_score([&](float& score, uint32_t, uint32_t) { score *= scale; });
            if (table)
                each_score([&](float& score, uint32_t row, uint32_t column) {
                    uint32_t query = h.first + row, at = key + column;
                    if (query >= t || at >= t) return;
                    score += LOG2E * (table[windows.offset(query, at) * heads + head % heads] + (windows.were_apart(head / heads, query, at) ? -100.0f : 0.0f));
                });
            if (mask || key + BLOCK > t)
                each_score([&](float& score, uint32_t, uint32_t column) {
                    uint32_t at = key + column;
                    if (at >= t || (mask && !mask[h.keys + at])) score = -INFINITY;
                });
            UNROLL for (uint32_t j = 0; j < BLOCK / 8; ++j)
                UNROLL for (uint32_t e = 0; e < 4; ++e) largest[e / 2] = fmaxf(largest[e / 2], s[j][e]);
            float base[2], factor[2];
            UNROLL for (uint32_t i = 0; i < 2; ++i) {
                float now = fmaxf(top[i], row_max(largest[i]));
                base[i] = now == -INFINITY ? 0.0f : now;  // no key yet
                factor[i] = power_of_two(top[i] - base[i]);
                top[i] = now, sum[i] *= factor[i];
            }
            UNROLL for (uint32_t c = 0; c < W / 8; ++c)
                UNROLL for (uint32_t e = 0; e < 4; ++e) o[c][e] *= factor[e / 2];
            UNROLL for (uint32_t g = 0; g < BLOCK / 16; ++g) {
                if (g >= groups) continue;
                UNROLL for (uint32_t j = 2 * g; j < 2 * g + 2; ++j)
                    UNROLL for (uint32_t e = 0; e < 4; ++e) {
                        s[j][e] = power_of_two(s[j][e] - base[e / 2]);
                        sum[e / 2] += s[j][e];
                    }
                uint32_t p[4];
                UNROLL for (uint32_t i = 0; i < 4; ++i) p[i] = pair<T>(s[2 * g + i / 2][i % 2 * 2], s[2 * g + i / 2][i % 2 * 2 + 1]);
                UNROLL for (uint32_t c = 0; c < W / 16; ++c) {
                    uint32_t b[4];
                    ldmatrix<true>(b, &tile.v.of[g * 16 + lane % 16][c * 16 + lane / 16 * 8]);
                    multiply(T{}, o[2 * c], p, b[0], b[1]);
                    multiply(T{}, o[2 * c + 1], p, b[2], b[3]);
                }
            }
        }
        __syncthreads();  // the tile has been read
        if (STAGES == 1 && more) start(key + BLOCK, 0);
    }

    UNROLL for (uint32_t i = 0; i < 2; ++i) {
        float all = row_sum(sum[i]), over = all == 0.0f ? 0.0f : 1.0f / all;  // no key is left: the row is zeros
        uint32_t row = h.first + own + lane / 4 + i * 8;
        if (row >= t) continue;
        UNROLL for (uint32_t c = 0; c < W / 8; ++c) {
            uint32_t channel = c * 8 + lane % 4 * 2;
            T* to = y + h.out + row * h.dim + channel;
            float low = o[c][2 * i] * over, high = o[c][2 * i + 1] * over;
            if (channel + 1 < width && uint64_t(to) % 4 == 0) *reinterpret_cast<uint32_t*>(to) = pair<T>(low, high);
            else {
                if (channel < width) store(to, low);
                if (channel + 1 < width) store(to + 1, high);
            }
        }
    }
}

// y [n, t, heads * width] = O; x [n, t, 3 heads * width], the mask [n, t] or null, the table [(2 side - 1)^2, heads] or null.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_tiles_32_bf16(bf16* y, const bf16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention_tiles<32, 2>(y, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_tiles_32_bf16);
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_tiles_32_f16(f16* y, const f16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention_tiles<32, 2>(y, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_tiles_32_f16);
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_tiles_64_bf16(bf16* y, const bf16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention_tiles<64, 2>(y, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_tiles_64_bf16);
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_tiles_64_f16(f16* y, const f16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention_tiles<64, 2>(y, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_tiles_64_f16);
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_tiles_128_bf16(bf16* y, const bf16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention_tiles<128, 1>(y, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_tiles_128_bf16);
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_tiles_128_f16(f16* y, const f16* x, const uint32_t* mask, const float* table, uint32_t t, uint32_t heads, uint32_t width, uint32_t side, uint32_t rows, uint32_t columns, uint32_t down, uint32_t right) { attention_tiles<128, 1>(y, x, mask, table, t, heads, width, side, rows, columns, down, right); }
KERNEL(attention_tiles_128_f16);
