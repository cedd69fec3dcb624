/*
ptx.cu: each instruction of common/gpu.h by itself, one warp each, to compare a machine with plain arithmetic.
*/
#include "common/gpu.h"
#include "tiles.h"

// out[i] = values[i] where keep[i / 16] is set, else 0: by copies of 4 bytes where i / 4 is odd, of 16 bytes elsewhere.
// Rows of 16 words go through PTX_STAGES stages; with more rows than stages the pipeline wraps.
extern "C" __global__ void __launch_bounds__(32)
copy_async_u32(uint32_t* out, const uint32_t* values, const uint32_t* keep, uint32_t rows) {
    struct alignas(16) Ring { uint32_t row[PTX_STAGES][16]; };
    SHARED(Ring, ring);
    uint32_t lane = threadIdx.x;
    auto load = [&](uint32_t r) {
        if (r < rows && lane < 4) {
            uint32_t* to = ring.row[r % PTX_STAGES] + 4 * lane;
            const uint32_t* from = values + 16 * uint64_t(r) + 4 * lane;
            if (lane % 2 == 0) copy_async<16>(to, from, keep[r]);
            else for (uint32_t i = 0; i < 4; ++i) copy_async<4>(to + i, from + i, keep[r]);
        }
        copy_commit();
    };
    for (uint32_t r = 0; r + 1 < PTX_STAGES; ++r) load(r);
    for (uint32_t r = 0; r < rows; ++r) {
        copy_wait<int(PTX_STAGES) - 2>();
        __syncwarp();
        load(r + PTX_STAGES - 1);
        if (lane < 16) out[16 * uint64_t(r) + lane] = ring.row[r % PTX_STAGES][lane];
    }
    copy_wait<0>();
}
KERNEL(copy_async_u32);

// out[l] = the 4 words of lane l, plain and then transposed; out [32, 8], matrices [4, 8, 4]: 4 matrices of 8 rows.
extern "C" __global__ void __launch_bounds__(32)
ldmatrix_u32(uint32_t* out, const uint32_t* matrices) {
    struct Rows { uint4 row[32]; };
    SHARED(Rows, rows);
    uint32_t lane = threadIdx.x, plain[4], transposed[4];
    rows.row[lane] = reinterpret_cast<const uint4*>(matrices)[lane];
    __syncwarp();
    ldmatrix(plain, &rows.row[lane]);
    ldmatrix<true>(transposed, &rows.row[lane]);
    for (uint32_t i = 0; i < 4; ++i) out[8 * lane + i] = plain[i], out[8 * lane + 4 + i] = transposed[i];
}
KERNEL(ldmatrix_u32);

// d += a b^T of values rounded to tf32; d [16, 8], a [16, 8], b [8, 8].
extern "C" __global__ void __launch_bounds__(32)
mma_tf32_f32(float* d, const float* a, const float* b) {
    uint32_t g = threadIdx.x / 4, t = threadIdx.x % 4, left[4];
    float sum[4];
    for (uint32_t i = 0; i < 4; ++i) {
        left[i] = tf32(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
        sum[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    }
    mma_tf32(sum, left, tf32(b[g * 8 + t]), tf32(b[g * 8 + t + 4]));
    for (uint32_t i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}
KERNEL(mma_tf32_f32);

// out[l] and out[32 + l] = x[2 l] and x[2 l + 1] as a pair of bf16, and of f16; out [2, 32], x [64].
extern "C" __global__ void __launch_bounds__(32)
halves_u32(uint32_t* out, const float* x) {
    float low = x[2 * threadIdx.x], high = x[2 * threadIdx.x + 1];
    out[threadIdx.x] = bf16x2(low, high);
    out[32 + threadIdx.x] = f16x2(low, high);
}
KERNEL(halves_u32);

// d += a b^T of 16-bit values, two per word, by `multiply`; d [16, 8], a [16, 16], b [8, 16].
template <class Multiply> DEVICE void mma_of_halves(float* d, const uint32_t* a, const uint32_t* b, Multiply multiply) {
    uint32_t g = threadIdx.x / 4, t = threadIdx.x % 4, left[4];
    float sum[4];
    for (uint32_t i = 0; i < 4; ++i) {
        left[i] = a[(g + i % 2 * 8) * 8 + t + i / 2 * 4];
        sum[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    }
    multiply(sum, left, b[g * 8 + t], b[g * 8 + t + 4]);
    for (uint32_t i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}
extern "C" __global__ void __launch_bounds__(32)
mma_bf16_f32(float* d, const uint32_t* a, const uint32_t* b) {
    mma_of_halves(d, a, b, [](auto& d, auto& a, uint32_t b0, uint32_t b1) { mma_bf16(d, a, b0, b1); });
}
KERNEL(mma_bf16_f32);
extern "C" __global__ void __launch_bounds__(32)
mma_f16_f32(float* d, const uint32_t* a, const uint32_t* b) {
    mma_of_halves(d, a, b, [](auto& d, auto& a, uint32_t b0, uint32_t b1) { mma_f16(d, a, b0, b1); });
}
KERNEL(mma_f16_f32);
