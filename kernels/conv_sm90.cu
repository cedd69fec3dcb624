/*
conv_sm90.cu: z = Wx + b with its node's epilogue, as conv.cu, on sm_90a: operands in 16 bits, copied by TMA, multiplied
by wgmma. x [n, h, w, c] and weight [o, r s, c] are in bf16 or f16, and come by tensor maps, not by p; c is a multiple of
8; one group, all rows.

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
template <class With> DEVICE void tiles(const AffineParameters& p, With with) {
    uint32_t wide = (p.layer.o + SM90_BLOCK_N - 1) / SM90_BLOCK_N, count = (p.pixels + SM90_BLOCK_M - 1) / SM90_BLOCK_M * wide;
    for (uint32_t tile = blockIdx.x; tile < count; tile += gridDim.x)
        with(tile / wide * SM90_BLOCK_M, tile % wide * SM90_BLOCK_N);
}

DEVICE void copy_operands(AffineMemory& memory, const TensorMap* x, const TensorMap* weight, const AffineParameters& p) {
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

struct alignas(16) Four { float of[4]; };

// The epilogue of 64 pixels and four channels of each thread, which begin on 16 bytes everywhere: the values of `finish`.
DEVICE void finish_fours(const AffineParameters& p, uint32_t pixel, uint32_t first, uint32_t thread, const float (&sums)[GEMM_TILE][COLUMN]) {
    uint32_t column = thread % 32 * 4, channel = first + column, end = min(GEMM_TILE, p.pixels - pixel);
    if (channel >= p.layer.o) return;
    auto four = [](const float* from) { return *reinterpret_cast<const Four*>(from); };
    Four b{}, scale, shift;
    if (p.bias) b = four(p.bias + channel);
    if (p.scale) scale = four(p.scale + channel), shift = four(p.shift + channel);
    for (uint32_t row = thread / 32; row < end; row += 4) {
        uint32_t to = (pixel + row) * p.layer.o + channel;
        Four value = four(&sums[row][column]), residual;
        if (p.residual) residual = four(p.residual + to);
        for (uint32_t e = 0; e < 4; ++e) {
            float& x = value.of[e];
            x += b.of[e];
            if (p.scale) x = __fadd_rn(__fmul_rn(x, scale.of[e]), shift.of[e]);
            if (p.residual) x += residual.of[e];
            x = activated(x, p.activation);
        }
        *reinterpret_cast<Four*>(p.y + to) = value;
    }
}

template <Half KIND> DEVICE void multiply(AffineMemory& memory, uint32_t consumer, const AffineParameters& p) {
    constexpr int COUNT = SM90_BLOCK_N / 2;
    Ring at;
    float step[COUNT], sum[HALVES][COUNT];
    uint32_t thread = threadIdx.x % 128, lane = thread % 32;
    uint32_t steps = p.layer.r * p.layer.s * ((p.layer.c + SM90_BLOCK_K - 1) / SM90_BLOCK_K);
    auto& sums = memory.sums[consumer];
    bool fours = p.layer.o % 4 == 0 && aligned(p.y) && aligned(p.bias) && aligned(p.scale) && aligned(p.shift) && aligned(p.residual);
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
            if (first < p.pixels && fours) {
                finish_fours(p, first, channel, thread, sums);
                if (p.parts && mine < p.layer.o) add_up(p, first / GEMM_TILE, mine, mine, at);
            } else if (first < p.pixels && mine < p.layer.o) finish(p, first / GEMM_TILE, mine, mine, 0, 1, at);
            barrier_sync(1 + consumer, 128);  // nobody reads the sums any more
        }
    });
}

template <Half KIND> DEVICE void affine(const TensorMap* x, const TensorMap* weight, const AffineParameters& p) {
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
conv_bf16_sm90(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight, const __grid_constant__ AffineParameters p) {
    affine<Half::BF16>(&x, &weight, p);
}
KERNEL(conv_bf16_sm90);
extern "C" __global__ void __launch_bounds__(SM90_THREADS, 1)
conv_f16_sm90(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight, const __grid_constant__ AffineParameters p) {
    affine<Half::F16>(&x, &weight, p);
}
KERNEL(conv_f16_sm90);
