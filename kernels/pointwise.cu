/*
pointwise.cu: sums of two values, and a scale and shift per channel (frozen batch norm; MATH.md, Eq. 10).

One thread handles one element. Every product and sum is rounded separately: the CPU's bits. Values of 16 bits are
rounded once more, when they are written. An output may alias an input.
*/
#include "common/element.h"
#include "tiles.h"

// y = a + b.
template <class T> DEVICE void sum(T* y, const T* a, const T* b, uint32_t len) {
    uint32_t i = blockIdx.x * POINTWISE_THREADS + threadIdx.x;
    if (i < len) store(y + i, load(a + i) + load(b + i));
}
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
sum_f32(float* y, const float* a, const float* b, uint32_t len) { sum(y, a, b, len); }
KERNEL(sum_f32);
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
sum_bf16(bf16* y, const bf16* a, const bf16* b, uint32_t len) { sum(y, a, b, len); }
KERNEL(sum_bf16);
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
sum_f16(f16* y, const f16* a, const f16* b, uint32_t len) { sum(y, a, b, len); }
KERNEL(sum_f16);

// y = scale x + shift, per channel.
template <class T>
DEVICE void scale_shift(T* y, const T* x, const float* scale, const float* shift, uint32_t len, uint32_t c) {
    uint32_t i = blockIdx.x * POINTWISE_THREADS + threadIdx.x;
    if (i < len) store(y + i, __fadd_rn(__fmul_rn(load(x + i), scale[i % c]), shift[i % c]));
}
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
scale_shift_f32(float* y, const float* x, const float* scale, const float* shift, uint32_t len, uint32_t c) { scale_shift(y, x, scale, shift, len, c); }
KERNEL(scale_shift_f32);
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
scale_shift_bf16(bf16* y, const bf16* x, const float* scale, const float* shift, uint32_t len, uint32_t c) { scale_shift(y, x, scale, shift, len, c); }
KERNEL(scale_shift_bf16);
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
scale_shift_f16(f16* y, const f16* x, const float* scale, const float* shift, uint32_t len, uint32_t c) { scale_shift(y, x, scale, shift, len, c); }
KERNEL(scale_shift_f16);

// y = scale x, or y += scale x, per channel.
extern "C" __global__ void __launch_bounds__(POINTWISE_THREADS)
scale_f32(float* y, const float* x, const float* scale, uint32_t len, uint32_t c, uint32_t add) {
    uint32_t i = blockIdx.x * POINTWISE_THREADS + threadIdx.x;
    if (i >= len) return;
    float product = __fmul_rn(x[i], scale[i % c]);
    y[i] = add ? __fadd_rn(y[i], product) : product;
}
KERNEL(scale_f32);
