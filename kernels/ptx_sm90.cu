/*
ptx_sm90.cu: each instruction of common/sm90.h by itself, to compare a machine with plain arithmetic, as ptx.cu.
*/
#include "common/sm90.h"
#include "tiles.h"

// out = values [rounds, 32], through PTX_STAGES stages with two mbarriers each, from one warp to another.
extern "C" __global__ void __launch_bounds__(64)
mbarrier_u32(uint32_t* out, const uint32_t* values, uint32_t rounds) {
    struct Ring { uint64_t full[PTX_STAGES], empty[PTX_STAGES]; uint32_t row[PTX_STAGES][32]; };
    SHARED(Ring, ring);
    uint32_t lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (uint32_t i = 0; i < PTX_STAGES; ++i) mbarrier_init(&ring.full[i], 32), mbarrier_init(&ring.empty[i], 32);
        fence_mbarrier_init();
    }
    __syncthreads();
    for (uint32_t r = 0; r < rounds; ++r) {
        uint32_t stage = r % PTX_STAGES, phase = r / PTX_STAGES % 2;
        if (threadIdx.x < 32) {
            mbarrier_wait(&ring.empty[stage], phase ^ 1);
            ring.row[stage][lane] = values[32 * uint64_t(r) + lane];
            mbarrier_arrive(&ring.full[stage]);
        } else {
            mbarrier_wait(&ring.full[stage], phase);
            out[32 * uint64_t(r) + lane] = ring.row[stage][lane];
            mbarrier_arrive(&ring.empty[stage]);
        }
    }
}
KERNEL(mbarrier_u32);

struct BoxMemory { uint32_t words[PTX_BOX_WORDS]; uint64_t barrier; };

// out [words] = shared memory after `load` has copied a box of this many words to its beginning.
template <class Load> DEVICE void loaded(uint32_t* out, uint32_t words, Load load) {
    SHARED_DYNAMIC(BoxMemory, memory);
    if (threadIdx.x == 0) mbarrier_init(&memory.barrier, 1), fence_mbarrier_init();
    __syncwarp();
    if (threadIdx.x == 0) mbarrier_expect(&memory.barrier, 4 * words), load(memory.words, &memory.barrier);
    mbarrier_wait(&memory.barrier, 0);
    for (uint32_t i = threadIdx.x; i < words; i += 32) out[i] = memory.words[i];
}
// A box of a tensor of `rank` dimensions.
extern "C" __global__ void __launch_bounds__(32)
tensor_load_u32(uint32_t* out, const __grid_constant__ TensorMap map, uint32_t words, uint32_t rank, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
    loaded(out, words, [&](void* to, uint64_t* barrier) {
        if (rank == 2) tensor_load(to, &map, barrier, int(x), int(y));
        else if (rank == 3) tensor_load(to, &map, barrier, int(x), int(y), int(z));
        else tensor_load(to, &map, barrier, int(x), int(y), int(z), int(w));
    });
}
KERNEL(tensor_load_u32);
// Pixels of images under one tap.
extern "C" __global__ void __launch_bounds__(32)
image_load_u32(uint32_t* out, const __grid_constant__ TensorMap map, uint32_t words, uint32_t c, uint32_t w, uint32_t h, uint32_t image, uint32_t right, uint32_t down) {
    loaded(out, words, [&](void* to, uint64_t* barrier) {
        image_load(to, &map, barrier, int(c), int(w), int(h), int(image), right, down);
    });
}
KERNEL(image_load_u32);

// The box at (x, y) of the tensor behind the map = values [words], as they stand in shared memory.
extern "C" __global__ void __launch_bounds__(32)
tensor_store_u32(const __grid_constant__ TensorMap map, const uint32_t* values, uint32_t words, uint32_t x, uint32_t y) {
    SHARED_DYNAMIC(BoxMemory, memory);
    for (uint32_t i = threadIdx.x; i < words; i += 32) memory.words[i] = values[i];
    fence_proxy_async();
    __syncwarp();
    if (threadIdx.x > 0) return;
    tensor_store(&map, memory.words, int(x), int(y));
    bulk_commit();
    bulk_wait<0>();
}
KERNEL(tensor_store_u32);

// out [32, 4] = the rows [4, 8, 4] that lanes make of their words [32, 4].
extern "C" __global__ void __launch_bounds__(32)
stmatrix_u32(uint32_t* out, const uint32_t* words) {
    struct Rows { uint4 row[32]; };
    SHARED(Rows, rows);
    uint32_t lane = threadIdx.x, mine[4];
    for (uint32_t i = 0; i < 4; ++i) mine[i] = words[4 * lane + i];
    stmatrix(&rows.row[lane], mine);
    __syncwarp();
    reinterpret_cast<uint4*>(out)[lane] = rows.row[lane];
}
KERNEL(stmatrix_u32);

// out[i] = i: threads of three warpgroups that share out their registers.
extern "C" __global__ void __launch_bounds__(384, 1)
registers_u32(uint32_t* out) {
    if (threadIdx.x < 128) fewer_registers<40>();
    else more_registers<232>();
    out[threadIdx.x] = threadIdx.x;
}
KERNEL(registers_u32);

struct OperandMemory { uint32_t a[PTX_A_WORDS], b[PTX_B_WORDS]; };

// d [64, N] += a b^T over `steps` depths of 16, each `a_step` and `b_step` bytes after the one before; a and b are words of
// shared memory, laid out as `swizzle`, leading and stride say. multiply(d, a, b) is the wgmma.
template <int N, class Multiply>
DEVICE void product(float* d, const uint32_t* a, const uint32_t* b, uint32_t swizzle, uint32_t a_leading, uint32_t a_stride, uint32_t b_leading, uint32_t b_stride, uint32_t a_step, uint32_t b_step, uint32_t steps, Multiply multiply) {
    SHARED_DYNAMIC(OperandMemory, memory);
    for (uint32_t i = threadIdx.x; i < PTX_A_WORDS; i += 128) memory.a[i] = a[i];
    for (uint32_t i = threadIdx.x; i < PTX_B_WORDS; i += 128) memory.b[i] = b[i];
    fence_proxy_async();
    __syncthreads();
    uint32_t row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    float sum[N / 2];
    auto at = [&](uint32_t i) -> float& { return d[(row + i / 2 % 2 * 8) * N + column + i / 4 * 8 + i % 2]; };
    for (uint32_t i = 0; i < N / 2; ++i) sum[i] = at(i);
    for (uint32_t step = 0; step < steps; ++step) {
        wgmma_fence();
        multiply(sum, advanced(operand(memory.a, swizzle, a_leading, a_stride), step * a_step),
                 advanced(operand(memory.b, swizzle, b_leading, b_stride), step * b_step));
    }
    wgmma_commit();
    wgmma_wait<0>(sum);
    for (uint32_t i = 0; i < N / 2; ++i) at(i) = sum[i];
}
// Bit 0 of `majors`: the rows of a are contiguous; bit 1: those of b.
extern "C" __global__ void __launch_bounds__(128)
wgmma_bf16_f32(float* d, const uint32_t* a, const uint32_t* b, uint32_t majors, uint32_t swizzle, uint32_t a_leading, uint32_t a_stride, uint32_t b_leading, uint32_t b_stride, uint32_t a_step, uint32_t b_step, uint32_t steps) {
    auto run = [&](auto multiply) { product<64>(d, a, b, swizzle, a_leading, a_stride, b_leading, b_stride, a_step, b_step, steps, multiply); };
    if (majors == 0) run([](auto& d, uint64_t a, uint64_t b) { wgmma<Half::BF16, 64>(d, a, b, true); });
    else if (majors == 1) run([](auto& d, uint64_t a, uint64_t b) { wgmma<Half::BF16, 64, true, false>(d, a, b, true); });
    else if (majors == 2) run([](auto& d, uint64_t a, uint64_t b) { wgmma<Half::BF16, 64, false, true>(d, a, b, true); });
    else run([](auto& d, uint64_t a, uint64_t b) { wgmma<Half::BF16, 64, true, true>(d, a, b, true); });
}
KERNEL(wgmma_bf16_f32);
// 256 columns, and operands of contiguous depth in rows of 128 bytes.
extern "C" __global__ void __launch_bounds__(128)
wgmma_wide_bf16_f32(float* d, const uint32_t* a, const uint32_t* b, uint32_t steps) {
    product<256>(d, a, b, 128, 0, 1024, 0, 1024, 32, 32, steps,
                 [](auto& d, uint64_t a, uint64_t b) { wgmma<Half::BF16, 256>(d, a, b, true); });
}
KERNEL(wgmma_wide_bf16_f32);
// 64 columns of f16.
extern "C" __global__ void __launch_bounds__(128)
wgmma_f16_f32(float* d, const uint32_t* a, const uint32_t* b, uint32_t steps) {
    product<64>(d, a, b, 128, 0, 1024, 0, 1024, 32, 32, steps,
                [](auto& d, uint64_t a, uint64_t b) { wgmma<Half::F16, 64>(d, a, b, true); });
}
KERNEL(wgmma_f16_f32);
// The same in bf16, with the first 16 depths of a in registers; a [64, 8] words.
extern "C" __global__ void __launch_bounds__(128)
wgmma_fragments_bf16_f32(float* d, const uint32_t* a, const uint32_t* b) {
    uint32_t row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, word = threadIdx.x % 4, left[4];
    for (uint32_t i = 0; i < 4; ++i) left[i] = a[(row + i % 2 * 8) * 8 + word + i / 2 * 4];
    product<64>(d, a, b, 128, 0, 1024, 0, 1024, 0, 0, 1,
                [&](auto& d, uint64_t, uint64_t b) { wgmma<Half::BF16, 64>(d, left, b, true); });
}
KERNEL(wgmma_fragments_bf16_f32);
