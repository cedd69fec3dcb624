/*
gemm.h: the matrix product of affine layers, on tensor cores. A block computes GEMM_TILE x GEMM_TILE sums, in steps of
64 bytes of depth: GEMM_DEPTH floats, or twice as many values of 16 bits.

    copies of both operands for GEMM_STAGES - 1 steps are in flight
    for each step: wait for its copies; start the copies into the free stage; each of four warps, with 32 x 32 sums,
                   reads fragments, multiplies, and adds the result of the step

Operands::F32 has the accuracy of f32 by 3xTF32: x = big + small keeps 22 of 24 bits, and a b = small big + big small +
big big. Tensor cores round their sums towards zero (Ootomo & Yokota, IJHPCA 2022). Each step therefore starts from
zero, and is added to the running sum by an addition that rounds to nearest. Every sum has a fixed order. An infinite
value gives NaN.

The other kinds multiply once; sums are as above. TF32 rounds a fragment of floats when it is read. BF16 and F16 have
operands of 16 bits in memory and in tiles: ldmatrix reads fragments as the instruction takes them.
*/
#pragma once
#include "../tiles.h"
#include "element.h"

static_assert(GEMM_THREADS == 128 && GEMM_TILE == 64 && GEMM_DEPTH == 16, "four warps of 32 x 32 sums");

// The depth of a step, in values.
template <class T> constexpr uint32_t DEPTH = GEMM_DEPTH * sizeof(float) / sizeof(T);

// A tile [64, DEPTH] of an operand whose depth is contiguous. A row has 64 bytes and 16 of padding, so that the 8 rows of a
// matrix that ldmatrix reads are on different banks.
template <class T> struct alignas(16) ByRow {
    static constexpr uint32_t LINE = 16 / sizeof(T);
    T of[GEMM_TILE][DEPTH<T> + LINE];

    // The 16 rows of 32 bytes that start at (row, k), as four matrices of 8 rows of 16 bytes: with g = lane / 4 and t =
    // lane % 4, word t of (g, first half), (g+8, first half), (g, second half), (g+8, second half). Floats: one a word, so
    // a fragment [16, 8]. 16 bits: neighbours 2t and 2t + 1 a word, a fragment [16, 16].
    DEVICE void fragment(uint32_t (&out)[4], uint32_t row, uint32_t k) const {
        uint32_t lane = threadIdx.x % 32;
        ldmatrix(out, &of[row + lane % 16][k + lane / 16 * LINE]);
    }
    DEVICE void fragment(float (&out)[4], uint32_t row, uint32_t k) const {
        uint32_t bits[4];
        fragment(bits, row, k);
        for (uint32_t i = 0; i < 4; ++i) out[i] = __uint_as_float(bits[i]);
    }
};

// The same for an operand whose rows are contiguous. The stride is 72 floats, so that a warp's reads have no bank
// conflicts.
struct alignas(16) ByDepth {
    float of[GEMM_DEPTH][GEMM_TILE + 8];

    DEVICE void fragment(float (&out)[4], uint32_t row, uint32_t k) const {
        uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        for (uint32_t i = 0; i < 4; ++i) out[i] = of[k + t + i / 2 * 4][row + g + i % 2 * 8];
    }
};

// Copies WIDTH neighbours, or zeros where `from` is null; `any` is a readable address. cp.async moves 4 bytes at least, so
// a single value of 16 bits is copied at once.
template <uint32_t WIDTH, class T> DEVICE void copy(T* to, const T* from, const T* any) {
    if constexpr (WIDTH * sizeof(T) >= 4) copy_async<int(WIDTH * sizeof(T))>(to, from ? from : any, from);
    else *to = from ? *from : T{};
}

// Fills a tile with step `step`. from(j, row, k) points to the value of a row of the tile at total depth k, or is null
// for a zero; j is 0 or 1, the index of the thread's line. With `wide`, 16 bytes of neighbours are copied at once.
template <uint32_t WIDTH, class T, class From> DEVICE void fill(ByRow<T>& tile, uint32_t step, const T* any, From from) {
    constexpr uint32_t LINE = ByRow<T>::LINE;
    uint32_t first = threadIdx.x % 4 * LINE, line = threadIdx.x / 4;
    UNROLL_4 for (uint32_t e = 0; e < LINE; e += WIDTH)
        for (uint32_t j = 0; j < 2; ++j)
            copy<WIDTH>(&tile.of[line + 32 * j][first + e], from(j, line + 32 * j, step * DEPTH<T> + first + e), any);
}
template <uint32_t WIDTH, class From> DEVICE void fill(ByDepth& tile, uint32_t step, const float* any, From from) {
    uint32_t quad = threadIdx.x % 16 * 4, line = threadIdx.x / 16;
    for (uint32_t e = 0; e < 4; e += WIDTH)
        for (uint32_t j = 0; j < 2; ++j)
            copy<WIDTH>(&tile.of[line + 8 * j][quad + e], from(j, quad + e, step * GEMM_DEPTH + line + 8 * j), any);
}
template <class Tile, class T, class From> DEVICE void fill(Tile& tile, uint32_t step, bool wide, const T* any, From from) {
    if (wide) fill<16 / sizeof(T)>(tile, step, any, from);
    else fill<1>(tile, step, any, from);
}

// A fragment of a tile, with every value as big + small, both tf32.
struct Split {
    uint32_t big[4], small[4];

    template <class Tile> DEVICE Split(const Tile& tile, uint32_t row, uint32_t k) {
        float x[4];
        tile.fragment(x, row, k);
        for (uint32_t i = 0; i < 4; ++i) {
            big[i] = tf32(x[i]);
            small[i] = tf32(__fsub_rn(x[i], __uint_as_float(big[i])));
        }
    }
};

// How operands are multiplied, and their type in memory.
enum class Operands { F32, TF32, BF16, F16 };
template <Operands KIND> struct Element { using Type = float; };
template <> struct Element<Operands::BF16> { using Type = bf16; };
template <> struct Element<Operands::F16> { using Type = f16; };

// A fragment of a tile as mma takes it: [16, 8] of tf32, which is rounded here, or [16, 16] of 16 bits.
template <Operands KIND> struct Fragment {
    static constexpr uint32_t DEPTH = KIND == Operands::TF32 ? 8 : 16;
    uint32_t of[4];

    template <class Tile> DEVICE Fragment(const Tile& tile, uint32_t row, uint32_t k) {
        if constexpr (KIND == Operands::TF32) {
            float x[4];
            tile.fragment(x, row, k);
            for (uint32_t i = 0; i < 4; ++i) of[i] = tf32(x[i]);
        } else {
            tile.fragment(of, row, k);
        }
    }
};
template <Operands KIND> DEVICE void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (KIND == Operands::TF32) mma_tf32(d, a, b0, b1);
    else if constexpr (KIND == Operands::BF16) mma_bf16(d, a, b0, b1);
    else mma_f16(d, a, b0, b1);
}

// The accumulator of a thread: with g and t as above, [i][j][e] is row 16 i + g + e / 2 * 8, column 8 j + 2 t + e % 2
// of its warp's 32 x 32 sums.
using Sums = float[2][4][4];
DEVICE uint32_t warp_row() { return threadIdx.x / 64 * 32; }
DEVICE uint32_t warp_column() { return threadIdx.x / 32 % 2 * 32; }

// sum += a b^T over one step.
template <Operands KIND, class A, class B> DEVICE void multiply(Sums& sum, const A& a, const B& b) {
    Sums step = {};
    if constexpr (KIND != Operands::F32) {
        using Part = Fragment<KIND>;
        for (uint32_t k = 0; k < DEPTH<typename Element<KIND>::Type>; k += Part::DEPTH) {
            const Part left[2] = {{a, warp_row(), k}, {a, warp_row() + 16, k}};
            const Part right[2] = {{b, warp_column(), k}, {b, warp_column() + 16, k}};
            for (uint32_t j = 0; j < 4; ++j)
                for (uint32_t i = 0; i < 2; ++i)
                    mma<KIND>(step[i][j], left[i].of, right[j / 2].of[j % 2], right[j / 2].of[j % 2 + 2]);
        }
    } else for (uint32_t k = 0; k < GEMM_DEPTH; k += 8) {
        const Split left[2] = {{a, warp_row(), k}, {a, warp_row() + 16, k}};
        const Split right[2] = {{b, warp_column(), k}, {b, warp_column() + 16, k}};
        for (uint32_t part = 0; part < 3; ++part)
            for (uint32_t j = 0; j < 4; ++j)
                for (uint32_t i = 0; i < 2; ++i) {
                    const auto& l = part == 0 ? left[i].small : left[i].big;
                    const auto& r = part == 1 ? right[j / 2].small : right[j / 2].big;
                    mma_tf32(step[i][j], l, r[j % 2], r[j % 2 + 2]);
                }
    }
    for (uint32_t i = 0; i < 2; ++i)
        for (uint32_t j = 0; j < 4; ++j)
            for (uint32_t e = 0; e < 4; ++e) sum[i][j][e] = __fadd_rn(sum[i][j][e], step[i][j][e]);
}

// The shared memory of a block: stages of its operands, and later its sums.
template <class A, class B> union Tiles {
    struct { A a; B b; } stage[GEMM_STAGES];
    float out[GEMM_TILE][GEMM_TILE + 8];
};

// tiles.out = the sums over `steps` steps. load(stage, step) starts the copies of both operands; with(stage) is called
// once they have arrived.
template <Operands KIND = Operands::F32, class A, class B, class Load, class With>
DEVICE void gemm(Tiles<A, B>& tiles, uint32_t steps, Load load, With with) {
    Sums sum = {};
    for (uint32_t step = 0; step + 1 < GEMM_STAGES; ++step) {
        if (step < steps) load(tiles.stage[step], step);
        copy_commit();
    }
    for (uint32_t step = 0; step < steps; ++step) {
        copy_wait<int(GEMM_STAGES) - 2>();
        __syncthreads();  // the step has arrived for all threads, and none reads the previous one
        uint32_t next = step + GEMM_STAGES - 1;
        if (next < steps) load(tiles.stage[next % GEMM_STAGES], next);
        copy_commit();
        const auto& stage = tiles.stage[step % GEMM_STAGES];
        multiply<KIND>(sum, stage.a, stage.b);
        with(stage);
    }
    copy_wait<0>();
    __syncthreads();
    uint32_t lane = threadIdx.x % 32, row = warp_row() + lane / 4, column = warp_column() + lane % 4 * 2;
    for (uint32_t i = 0; i < 2; ++i)
        for (uint32_t j = 0; j < 4; ++j)
            for (uint32_t e = 0; e < 4; ++e) tiles.out[row + 16 * i + e / 2 * 8][column + 8 * j + e % 2] = sum[i][j][e];
    __syncthreads();
}
