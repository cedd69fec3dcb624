/*
peak.cu: the peak rate of tensor cores through mma.sync, the instruction of every product here; for the bench.

A warp multiplies fragments of ones into PEAK_SUMS independent sums, and reads nothing. A thread writes its total, which
is an integer.
*/
#include "common/gpu.h"
#include "tiles.h"

template <class Multiply> DEVICE void peak(float* out, uint32_t one, uint32_t steps, Multiply multiply) {
    float sums[PEAK_SUMS][4] = {}, all = 0.0f;
    uint32_t a[4] = {one, one, one, one};
    for (uint32_t step = 0; step < steps; ++step)
        for (auto& sum : sums) multiply(sum, a, one, one);
    for (auto& sum : sums)
        for (float of : sum) all += of;
    out[blockIdx.x * PEAK_THREADS + threadIdx.x] = all;
}
extern "C" __global__ void __launch_bounds__(PEAK_THREADS)
peak_tf32(float* out, uint32_t steps) {
    peak(out, 0x3f800000, steps, [](auto& d, auto& a, uint32_t b0, uint32_t b1) { mma_tf32(d, a, b0, b1); });
}
KERNEL(peak_tf32);
extern "C" __global__ void __launch_bounds__(PEAK_THREADS)
peak_bf16(float* out, uint32_t steps) {
    peak(out, 0x3f803f80, steps, [](auto& d, auto& a, uint32_t b0, uint32_t b1) { mma_bf16(d, a, b0, b1); });
}
KERNEL(peak_bf16);
