/*
narrow.cu: values rounded to 16 bits, to nearest and ties to even: weights, and inputs that are floats, for conv.cu and
conv_sm90.cu.

beyond_f16 notes where values of f16 are not finite, which the kernels that wrote them do not (affine layers do).

A thread has 8 values. Bound by memory: 6 bytes a value, and 2.
*/
#include "common/affine.h"

// out = x, rounded; both [len].
template <class T> DEVICE void narrow(T* out, const float* x, uint32_t len) {
    uint32_t first = (blockIdx.x * NARROW_THREADS + threadIdx.x) * 8;
    if (first + 8 <= len && aligned(x) && aligned(out)) {
        Line<float> low = line_at(x + first), high = line_at(x + first + 4);
        Line<T> both;
        both.set({low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]});
        *reinterpret_cast<Line<T>*>(out + first) = both;
    } else {
        for (uint32_t i = first; i < min(first + 8, len); ++i) store(out + i, x[i]);
    }
}
extern "C" __global__ void __launch_bounds__(NARROW_THREADS)
narrow_bf16(bf16* out, const float* x, uint32_t len) { narrow(out, x, len); }
KERNEL(narrow_bf16);
extern "C" __global__ void __launch_bounds__(NARROW_THREADS)
narrow_f16(f16* out, const float* x, uint32_t len) { narrow(out, x, len); }
KERNEL(narrow_f16);

// flag |= whether any of the values [len] is no number.
extern "C" __global__ void __launch_bounds__(NARROW_THREADS)
beyond_f16(uint32_t* flag, const uint16_t* values, uint32_t len) {
    uint32_t first = (blockIdx.x * NARROW_THREADS + threadIdx.x) * 8;
    bool fit = true;
    if (first + 8 <= len && aligned(values)) {
        const uint4 line = *reinterpret_cast<const uint4*>(values + first);
        const uint32_t words[4] = {line.x, line.y, line.z, line.w};
        for (uint32_t word : words) fit = fit && (((word & 0x7fff7fffu) + 0x04000400u) & 0x80008000u) == 0;  // exponents of ones carry
    } else {
        for (uint32_t i = first; i < min(first + 8, len); ++i) fit = fit && (values[i] & 0x7c00u) != 0x7c00u;
    }
    note(flag, fit);
}
KERNEL(beyond_f16);
