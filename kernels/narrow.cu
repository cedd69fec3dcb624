/*
narrow.cu: values rounded to 16 bits, two to a word, to nearest and ties to even: operands of conv_sm90.cu.

A thread has 8 values. Bound by memory: 6 bytes a value.
*/
#include "common/affine.h"

// out = x, rounded; both [len].
template <class Round> DEVICE void narrow(uint16_t* out, const float* x, uint32_t len, Round round) {
    uint32_t first = (blockIdx.x * NARROW_THREADS + threadIdx.x) * 8;
    if (first + 8 <= len && aligned(x) && aligned(out)) {
        float4 low = reinterpret_cast<const float4*>(x + first)[0], high = reinterpret_cast<const float4*>(x + first)[1];
        uint4 words = make_uint4(round(low.x, low.y), round(low.z, low.w), round(high.x, high.y), round(high.z, high.w));
        *reinterpret_cast<uint4*>(out + first) = words;
    } else {
        for (uint32_t i = first; i < min(first + 8, len); ++i) out[i] = uint16_t(round(x[i], 0.0f));
    }
}
extern "C" __global__ void __launch_bounds__(NARROW_THREADS)
narrow_bf16(uint16_t* out, const float* x, uint32_t len) {
    narrow(out, x, len, [](float low, float high) { return bf16x2(low, high); });
}
KERNEL(narrow_bf16);
extern "C" __global__ void __launch_bounds__(NARROW_THREADS)
narrow_f16(uint16_t* out, const float* x, uint32_t len) {
    narrow(out, x, len, [](float low, float high) { return f16x2(low, high); });
}
KERNEL(narrow_f16);
