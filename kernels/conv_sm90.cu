/*
conv_sm90.cu: z = Wx + b with its node's epilogue, as conv.cu, on sm_90a: operands in 16 bits, copied by TMA, multiplied
by wgmma. x [n, h, w, c] and weight [o, r s, c] are in bf16 or f16, and come by tensor maps, not by p; c is a multiple of
8; one group, all rows. y and the residual are of the same 16 bits, or floats (_wide).

    one thread copies:       for each tile of the block, for each step of depth BLOCK_K under one tap: wait until a stage is
                             empty; copy BLOCK_M pixels of x under the tap, and BLOCK_N rows of the weights
    two warpgroups multiply: for each step: wait until its stage is full; twice 64 x BLOCK_N sums of it by wgmma, each
                             added to the running sums; give the stage back; after the last step, the epilogue

A block is persistent: it takes every gridDim.x-th tile of BLOCK_M pixels x BLOCK_N channels, channels first, so that
blocks at work read the same pixels. One block per multiprocessor (212 KB of shared memory). Bound by L2 (85 flop a
byte), or by memory where there are few channels; benches/predict.py has the numbers.

Tensor cores cut their sums off (emu/tensor.cc). So every step starts from zero, and is added to the running sum by an
addition that rounds to nearest, as in common/gemm.h; while one warpgroup adds, the other multiplies. The order of sums
is fixed. The copies leave zeros in the padding, beyond the last channel, pixel and row, which so add nothing.
*/
#include "common/affine.h"
#include "common/sm90.h"

constexpr uint32_t CONSUMERS = 2, HALVES = SM90_BLOCK_M / CONSUMERS / GEMM_TILE, COLUMN = SM90_BLOCK_N + 8;  // a padding against bank conflicts
static_assert(SM90_THREADS == 128 * (1 + CONSUMERS) && GEMM_TILE == 64, "a warpgroup copies, the others have 128 rows each");
static_assert(SM90_BLOCK_K == 64, "rows of 128 bytes, which is the swizzle");

struct AffineMemory {
    struct { uint16_t x[SM90_BLOCK_M][SM90_BLOCK_K], weight[SM90_BLOCK_N][SM90_BLOCK_K]; } stage[SM90_STAGES];
    float sums[CONSUMERS][GEMM_TILE][COLUMN];
    uint64_t full[SM90_STAGES], empty[SM90_STAGES];
};
static_assert(sizeof(AffineMemory) == SM90_SHARED, "tiles.h");

// A stage of the ring, and the parity of the phase that it is in.
struct Ring {
    uint32_t stage = 0, phase = 0;
    DEVICE void next() {
        if (++stage == SM90_STAGES) stage = 0, phase ^= 1;
    }
};

// Calls with(pixel, channel) for the tiles of this block.
template <class P, class With> DEVICE void tiles(const P& p, With with) {
    uint32_t wide = (p.layer.o + SM90_BLOCK_N - 1) / SM90_BLOCK_N, count = (p.pixels + SM90_BLOCK_M - 1) / SM90_BLOCK_M * wide;
    for (uint32_t tile = blockIdx.x; tile < count; tile += gridDim.x)
        with(tile / wide * SM90_BLOCK_M, tile % wide * SM90_BLOCK_N);
}

template <class P>
DEVICE void copy_operands(AffineMemory& memory, const TensorMap* x, const TensorMap* weight, const P& p) {
    const Layer& l = p.layer;
    bool matrix = l.r * l.s == 1 && l.stride == 1 && l.above + l.left == 0;  // x is [pixels, c]
    Ring at;
    tiles(p, [&](uint32_t pixel, uint32_t channel) {
        const Pixel from(pixel, p.pixels, l.oh, l.ow);
        int row = int(from.row * l.stride) - int(l.above), column = int(from.column * l.stride) - int(l.left);
        for (uint32_t tap = 0; tap < l.r * l.s; ++tap)
            for (uint32_t depth = 0; depth < l.c; depth += SM90_BLOCK_K, at.next()) {
                auto& stage = memory.stage[at.stage];
                uint64_t* full = &memory.full[at.stage];
                mbarrier_wait(&memory.empty[at.stage], at.phase ^ 1);
                mbarrier_expect(full, sizeof stage);
                if (matrix) tensor_load(stage.x, x, full, int(depth), int(pixel));
                else image_load(stage.x, x, full, int(depth), column, row, int(from.image), tap % l.s * l.dilation, tap / l.s * l.dilation);
                tensor_load(stage.weight, weight, full, int(depth), int(tap), int(channel));
            }
    });
}

// The epilogue of 64 pixels and 16 bytes of channels of each thread, which begin on 16 bytes everywhere: the values of
// `finish`. Neighbouring threads have neighbouring channels.
template <class X, class Y>
DEVICE void finish_lines(const AffineParameters<X, X, Y>& p, uint32_t pixel, uint32_t first, uint32_t thread, const float (&sums)[GEMM_TILE][COLUMN]) {
    constexpr uint32_t COUNT = Line<Y>::COUNT, ACROSS = SM90_BLOCK_N / COUNT;
    uint32_t column = thread % ACROSS * COUNT, channel = first + column, end = min(GEMM_TILE, p.pixels - pixel);
    if (channel >= p.layer.o) return;
    auto floats = [](float (&to)[COUNT], const float* from) {
        for (uint32_t e = 0; e < COUNT; e += 4) {
            const Line<float> four = line_at(from + e);
            for (uint32_t i = 0; i < 4; ++i) to[e + i] = four[i];
        }
    };
    float b[COUNT] = {}, scale[COUNT], shift[COUNT];
    if (p.bias) floats(b, p.bias + channel);
    if (p.scale) floats(scale, p.scale + channel), floats(shift, p.shift + channel);
    bool fit = true;
    for (uint32_t row = thread / ACROSS; row < end; row += 128 / ACROSS) {
        uint32_t to = (pixel + row) * p.layer.o + channel;
        Line<Y> residual, out;
        if (p.residual) residual = line_at(p.residual + to);
        float value[COUNT];
        floats(value, &sums[row][column]);
        for (uint32_t e = 0; e < COUNT; ++e) {
            float& x = value[e];
            x += b[e];
            if (p.scale) x = __fadd_rn(__fmul_rn(x, scale[e]), shift[e]);
            if (p.residual) x += residual[e];
            x = activated<Y>(x, p.activation);
            fit = fit && fits<Y>(x);
        }
        out.set(value);
        *reinterpret_cast<Line<Y>*>(p.y + to) = out;
    }
    note(p.overflow, fit);
}

template <Half KIND, class X, class Y> DEVICE void multiply(AffineMemory& memory, uint32_t consumer, const AffineParameters<X, X, Y>& p) {
    constexpr int COUNT = SM90_BLOCK_N / 2;
    Ring at;
    float step[COUNT], sum[HALVES][COUNT];
    uint32_t thread = threadIdx.x % 128, lane = thread % 32;
    uint32_t steps = p.layer.r * p.layer.s * ((p.layer.c + SM90_BLOCK_K - 1) / SM90_BLOCK_K);
    auto& sums = memory.sums[consumer];
    bool lines = p.layer.o % Line<Y>::COUNT == 0 && aligned(p.y) && aligned(p.bias) && aligned(p.scale) && aligned(p.shift) && aligned(p.residual);
    tiles(p, [&](uint32_t pixel, uint32_t channel) {
        for (auto& half : sum) for (float& x : half) x = 0.0f;
        for (uint32_t s = 0; s < steps; ++s, at.next()) {
            const auto& stage = memory.stage[at.stage];
            mbarrier_wait(&memory.full[at.stage], at.phase);
            uint64_t b = operand(stage.weight, 128, 0, 1024);
            UNROLL for (uint32_t half = 0; half < HALVES; ++half) {
                uint64_t a = operand(stage.x[(consumer * HALVES + half) * GEMM_TILE], 128, 0, 1024);
                wgmma_fence();
                for (uint32_t k = 0; k < SM90_BLOCK_K; k += 16) wgmma<KIND, SM90_BLOCK_N>(step, advanced(a, 2 * k), advanced(b, 2 * k), k > 0);
                wgmma_commit();
                wgmma_wait<0>(step);
                if (half + 1 == HALVES && lane == 0) mbarrier_arrive(&memory.empty[at.stage]);
                for (int i = 0; i < COUNT; ++i) sum[half][i] = __fadd_rn(sum[half][i], step[i]);
            }
        }
        uint32_t row = thread / 32 * 16 + lane / 4, column = lane % 4 * 2, mine = channel + thread;
        UNROLL for (uint32_t half = 0; half < HALVES; ++half) {
            uint32_t first = pixel + (consumer * HALVES + half) * GEMM_TILE;
            for (int i = 0; i < COUNT; ++i) sums[row + i / 2 % 2 * 8][column + i / 4 * 8 + i % 2] = sum[half][i];
            barrier_sync(1 + consumer, 128);
            auto at = [&](uint32_t row) { return sums[row][thread]; };
            if (first < p.pixels && lines) {
                finish_lines(p, first, channel, thread, sums);
                if (p.parts && mine < p.layer.o) add_up(p, first / GEMM_TILE, mine, mine, at);
            } else if (first < p.pixels && mine < p.layer.o) finish(p, first / GEMM_TILE, mine, mine, 0, 1, at);
            barrier_sync(1 + consumer, 128);  // nobody reads the sums any more
        }
    });
}

template <Half KIND, class X, class Y> DEVICE void affine(const TensorMap* x, const TensorMap* weight, const AffineParameters<X, X, Y>& p) {
    SHARED_DYNAMIC(AffineMemory, memory);
    if (threadIdx.x == 0) {
        for (uint32_t i = 0; i < SM90_STAGES; ++i) {
            mbarrier_init(&memory.full[i], 1);
            mbarrier_init(&memory.empty[i], 4 * CONSUMERS);  // an arrival of each warp
        }
        fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        fewer_registers<40>();
        if (threadIdx.x == 0) copy_operands(memory, x, weight, p);
    } else {
        more_registers<232>();
        multiply<KIND>(memory, threadIdx.x / 128 - 1, p);
    }
}

extern "C" __global__ void __launch_bounds__(SM90_THREADS, 1)
conv_bf16_sm90(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight, const __grid_constant__ AffineParameters<bf16, bf16, bf16> p) {
    affine<Half::BF16>(&x, &weight, p);
}
KERNEL(conv_bf16_sm90);
extern "C" __global__ void __launch_bounds__(SM90_THREADS, 1)
conv_f16_sm90(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight, const __grid_constant__ AffineParameters<f16, f16, f16> p) {
    affine<Half::F16>(&x, &weight, p);
}
KERNEL(conv_f16_sm90);
extern "C" __global__ void __launch_bounds__(SM90_THREADS, 1)
conv_bf16_wide_sm90(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight, const __grid_constant__ AffineParameters<bf16, bf16, float> p) {
    affine<Half::BF16>(&x, &weight, p);
}
KERNEL(conv_bf16_wide_sm90);
extern "C" __global__ void __launch_bounds__(SM90_THREADS, 1)
conv_f16_wide_sm90(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight, const __grid_constant__ AffineParameters<f16, f16, float> p) {
    affine<Half::F16>(&x, &weight, p);
}
KERNEL(conv_f16_wide_sm90);
