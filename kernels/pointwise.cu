/*
pointwise.cu: sums of two values, and a scale and shift per channel (frozen batch norm; MATH.md, Eq. 10).

One thread handles one element. Every product and sum is rounded separately: the CPU's bits. An output may alias an
input.
*/
#include "common/gpu.h"
#include "tiles.h"

// y = a + b.
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
sum_f32(float* y, const float* a, const float* b, uint32_t len) {
    uint32_t i = blockIdx.x * POINTWISE_THREADS + threadIdx.x;
    if (i < len) y[i] = a[i] + b[i];
}
KERNEL(sum_f32);

// y = scale x + shift, per channel.
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
scale_shift_f32(float* y, const float* x, const float* scale, const float* shift, uint32_t len, uint32_t c) {
    uint32_t i = blockIdx.x * POINTWISE_THREADS + threadIdx.x;
    if (i < len) y[i] = __fadd_rn(__fmul_rn(x[i], scale[i % c]), shift[i % c]);
}
KERNEL(scale_shift_f32);

// y = scale x, or y += scale x, per channel.
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
scale_f32(float* y, const float* x, const float* scale, uint32_t len, uint32_t c, uint32_t add) {
    uint32_t i = blockIdx.x * POINTWISE_THREADS + threadIdx.x;
    if (i >= len) return;
    float product = __fmul_rn(x[i], scale[i % c]);
    y[i] = add ? __fadd_rn(y[i], product) : product;
}
KERNEL(scale_f32);
